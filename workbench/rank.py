"""One rank's share of a training step: its part of the model, its part of the input, the step."""

import time
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from workbench.comm import Comm
from workbench.launch import local_device
from workbench.layout import Layout, take_shard, trim_shard
from workbench.strategies import Strategy, choose_shard
from workbench.transformer import Transformer, TransformerSpec, initial_weights


def rank_step(
    comm: Comm,
    spec: TransformerSpec,
    cls: type[Strategy],
    dtype: str = "float32",
    seed: int = 0,
    shard: str | None = None,
    repeats: int = 1,
) -> dict[str, Any]:
    """One rank's share of `run_step`, for use inside a function that `run_local` runs.

    Returns
    -------
    dict
        ``output`` and ``layout``, ``loss`` (this rank's part), ``gradients`` (of this rank's part
        of the input and weights), ``start`` (the input's layout), ``log``, ``seconds`` (a list).
    """
    step, seconds = RankStep(comm, spec, cls, dtype, seed, shard, local_device()), []
    for _ in range(repeats):
        step.reset()
        if comm.group is not None:
            dist.barrier(comm.group)
        started = time.perf_counter()
        y, layout, loss = step.run()
        if y.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return {
        "output": y.detach().cpu(),
        "layout": layout,
        "loss": loss.item(),
        "gradients": {name: t.grad.cpu() for name, t in step.leaves()},
        "start": step.strategy.start,
        "log": comm.log,
        "seconds": seconds,
    }


class RankStep:
    """One rank's model and input, and the step itself."""

    def __init__(self, comm, spec, cls, dtype, seed, shard, device):
        shard = choose_shard(cls, spec, comm.size, spec.branches, shard)
        self.comm, self.strategy = comm, cls(comm, spec, shard)
        weights = initial_weights(spec, seed=seed, dtype=dtype, device=device.type)
        self.model = Transformer(spec, self.strategy, weights)
        x = take_shard(sample(spec, seed, dtype, device), self.strategy.start, comm.rank, comm.size)
        self.x = x.clone(memory_format=torch.contiguous_format).requires_grad_()

    def leaves(self) -> list[tuple[str, Tensor]]:
        return [("input", self.x), *self.model.named_weights()]

    def reset(self) -> None:
        self.comm.log.clear()
        for _, leaf in self.leaves():
            leaf.grad = None

    def run(self) -> tuple[Tensor, Layout, Tensor]:
        """Forward, loss, backward, sum of the replicated weights' gradients."""
        y, layout = self.model(self.x)
        data = trim_shard(y, layout, self.comm.rank, self.comm.size)
        loss = data.square().sum() / prod(layout.sizes.values())
        loss.backward()
        if self.strategy.start.split is not None:
            weights = self.model.named_weights()
            self.comm.sum_gradients(
                w.grad for name, w in weights if self.strategy.cut_dim(name) is None
            )
        return y, layout, loss


def sample(spec: TransformerSpec, seed: int, dtype: str, device: torch.device) -> Tensor:
    """The whole input ``[B, *dims, M]``, drawn from the seed and independent of p and strategy."""
    shape = tuple(spec.stream.sizes.values())
    if device.type == "meta":
        return torch.empty(shape, dtype=getattr(torch, dtype), device=device)
    # Weights use the seed as it is; the input must not repeat their numbers.
    generator = torch.Generator().manual_seed(seed + 1)
    return torch.randn(shape, generator=generator).to(device, getattr(torch, dtype))
