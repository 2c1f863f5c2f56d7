"""One rank's share of a training step: its part of the model, its part of the input, the step."""

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from workbench.comm import Comm
from workbench.dims import Dims, Lengths
from workbench.launch import local_device
from workbench.layout import Cut, Layout, shard_size, take_shard, trim_shard
from workbench.mesh import DATA, Mesh
from workbench.model import Transformer
from workbench.strategies import Strategy, choose_shard, mesh_of, ranks_of
from workbench.strategies.padding import real_tokens
from workbench.transformer import TransformerSpec, initial_weights


def rank_step(
    comm: Comm,
    spec: TransformerSpec,
    cls: type[Strategy],
    dtype: str = "float32",
    seed: int = 0,
    shard: str | None = None,
    repeats: int = 1,
    mesh: Mapping[str, int] | None = None,
    **memory,
) -> dict[str, Any]:
    """One rank's share of `run_step`, for use inside a function that `run_local` runs.

    Returns
    -------
    dict
        ``output`` and ``layout``, ``loss`` (this rank's part), ``gradients`` (of this rank's part
        of the input and weights), ``start`` (the input's layout), ``log``, ``seconds`` (a list).
        Layouts come as `Held`. ``part`` is the rank along the strategy's axis, ``data`` that
        along the axis over which the samples are cut. ``memory`` is ``checkpoint``, ``switch``,
        ``accumulate``, ``fsdp`` and ``autocast``, as of `fake_step`.
    """
    step = RankStep(comm, spec, cls, dtype, seed, shard, local_device(), mesh, **memory)
    seconds = []
    for _ in range(repeats):
        step.reset()
        taken, (y, layout, loss) = timed_run(step)
        seconds.append(taken)
    return {
        "output": y.detach().cpu(),
        "layout": step.held(layout),
        "loss": loss.item(),
        "gradients": {name: whole(t.grad).cpu() for name, t in step.leaves()},
        "start": step.held(step.strategy.start),
        "part": step.strategy.comm.rank,
        "data": step.data.rank,
        "log": comm.log,
        "seconds": seconds,
    }


def timed_run(step: "RankStep") -> tuple[float, tuple[Tensor, Layout, Tensor]]:
    """Run a step that all ranks begin together; its seconds on this rank [s], and what it gives."""
    if step.world.group is not None:
        dist.barrier(step.world.group)
    started = time.perf_counter()
    result = step.run()
    if result[0].is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that FSDP has cut over the ranks, and any other as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


class Held(NamedTuple):
    """A layout of all samples, and which of how many ranks along its axis holds a part."""

    layout: Layout
    rank: int
    size: int


class RankStep:
    """One rank's model and input, and the step itself."""

    def __init__(
        self, comm, spec, cls, dtype, seed, shard, device, mesh=None,
        *, checkpoint="none", switch="inside", accumulate=1, fsdp=False, autocast=False,
    ):  # fmt: skip
        mesh = mesh_of(cls, comm.size, mesh)
        ranks, data = ranks_of(cls, comm.size, mesh)
        self.world, self.spec, self.accumulate = comm, spec, accumulate
        self.fsdp, self.autocast = fsdp and comm.size > 1, autocast
        grid = Mesh(comm, mesh) if mesh else None
        self.data = grid[DATA] if data > 1 else comm.beside(DATA, 1, 0, None)
        mine = replace(spec, batch=shard_size(spec.batch, data) // accumulate, valid={})
        shard = choose_shard(cls, mine, ranks, spec.branches, shard)
        self.strategy = cls(own_comm(cls, comm, grid), mine, shard)
        weights = initial_weights(spec, seed=seed, dtype=dtype, device=device.type)
        self.model = Transformer(mine, self.strategy, weights, checkpoint, switch)
        x = take_shard(sample(spec, seed, dtype, device), *self.held(self.strategy.start))
        self.context = text(spec, seed, dtype, device)
        if self.context is not None:
            self.context = take_shard(self.context, *self.held(self.strategy.text))
        self.x = x.clone(memory_format=torch.contiguous_format).requires_grad_()
        if self.fsdp:
            from workbench.fsdp import cut  # here: torch's FSDP takes a second to load

            cut(self.model, comm, keep_gathered=fsdp == "keep")

    def held(self, layout: Layout) -> Held:
        """``layout`` with all samples, of which the data axis cuts some out for this rank."""
        along = self.strategy.along(layout)
        cut = Cut("batch", DATA, self.data.size, self.data.rank)
        if cut.parts > 1 or layout.sizes["batch"] < self.spec.batch:
            outer = (cut, *layout.outer) if cut.parts > 1 else layout.outer
            sizes = Dims({**layout.sizes, "batch": self.spec.batch})
            layout = replace(layout, sizes=sizes, outer=outer)
        return Held(layout, along.rank, along.size)

    def leaves(self) -> list[tuple[str, Tensor]]:
        return [("input", self.x), *self.model.named_weights()]

    def reset(self) -> None:
        self.world.log.clear()
        for _, leaf in self.leaves():
            leaf.grad = None

    def run(self) -> tuple[Tensor, Layout, Tensor]:
        """Forward, loss, backward, sum of the weights' gradients."""
        outputs, losses, samples = [], [], len(self.x) // self.accumulate
        valid = len(self.held(self.strategy.start).layout.held("batch", 0, 1))
        for i, x in enumerate(self.x.split(samples)):
            first, lengths = i * samples, self._lengths().of(slice(i * samples, (i + 1) * samples))
            with torch.autocast(x.device.type, torch.bfloat16) if self.autocast else nullcontext():
                y, layout = self.model(x, self._context(first, samples), lengths)
            y = self._real(y, layout, lengths)
            outputs.append(y.detach())
            data = self._without_padding(y, layout)[: max(0, valid - first)]
            losses.append(data.square().sum() / (self.spec.real_tokens * self.spec.d_model))
            losses[-1].backward()
        self._sum_gradients()
        return torch.cat(outputs), layout, torch.stack(losses).sum().detach()

    def _context(self, first: int, count: int) -> Tensor | None:
        """The texts of ``count`` of this rank's samples."""
        return None if self.context is None else self.context[first : first + count]

    def _lengths(self) -> Lengths:
        """How long this rank's samples are; one that only fills up a batch has length 1."""
        samples = self.held(self.strategy.start).layout.held("batch", 0, 1)
        more = (1,) * (len(self.x) - len(samples))
        lengths = self.spec.valid.items()
        return Lengths({dim: [*(each[i] for i in samples), *more] for dim, each in lengths})

    def _real(self, y: Tensor, layout: Layout, lengths: Lengths) -> Tensor:
        """``y``, and 0 where its samples have padding."""
        if not lengths:
            return y
        along = self.strategy.along(layout)
        real = real_tokens(lengths, layout, along.rank, along.size)
        return y.masked_fill(~real.to(y.device), 0)

    def _without_padding(self, y: Tensor, layout: Layout) -> Tensor:
        _, rank, size = self.held(layout)
        return trim_shard(y, layout, rank, size)

    def _sum_gradients(self) -> None:
        """Over all ranks for weights that each used on other tokens, else over the data axis.

        FSDP has done so during the backward.
        """
        if self.fsdp:
            return
        everywhere, along_data = [], []
        for name, weight in self.model.named_weights():
            replicated = self.strategy.cut_dim(name) is None
            cut = self.strategy.start.split is not None
            (everywhere if replicated and cut else along_data).append(weight.grad)
        self.world.sum_gradients(everywhere)
        self.data.sum_gradients(along_data, axis=DATA)


def own_comm(cls: type[Strategy], comm: Comm, grid: Mesh | None) -> Comm | Mesh:
    """What of the mesh a strategy gets: all of it, or its one axis."""
    if grid is None or cls.axes:
        return grid or comm
    own = [axis for axis in grid.axes if axis != DATA]
    return grid[own[0]] if own else comm.beside(cls.name, 1, 0, None)


def sample(spec: TransformerSpec, seed: int, dtype: str, device: torch.device) -> Tensor:
    """The whole input ``[B, *dims, M]``, drawn from the seed and independent of p and strategy."""
    shape = tuple(spec.stream.sizes.values())
    return _drawn(shape, seed + 1, dtype, device)


def text(spec: TransformerSpec, seed: int, dtype: str, device: torch.device) -> Tensor | None:
    """The texts of all samples ``[B, L, M]``, if the spec has any; given, so without gradient."""
    if not spec.context_length:
        return None
    shape = (spec.batch, spec.context_length, spec.d_model)
    return _drawn(shape, seed + 2, dtype, device)


def _drawn(shape: tuple[int, ...], seed: int, dtype: str, device: torch.device) -> Tensor:
    """Normal numbers; weights use a step's seed as it is, and these must not repeat them."""
    if device.type == "meta":
        return torch.empty(shape, dtype=getattr(torch, dtype), device=device)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(device, getattr(torch, dtype))
