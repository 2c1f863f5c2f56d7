"""Weights cut along the ranks that cut tokens: torch's own FSDP (ZeRO, stage 3) around a strategy.

Each branch is one group: its weights are gathered just before it runs and let go of afterwards;
its gradients are summed and scattered. `Comm` moves and records both.
"""

import time
from math import prod

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.fsdp._fully_shard._fsdp_api import AllGather, ReduceScatter

from workbench.closed_form import prepared
from workbench.collectives import sent_bytes
from workbench.comm import Comm, Site
from workbench.launch import local_device, run_local
from workbench.layout import shard_size
from workbench.model import Transformer
from workbench.outcome import RealStep, compare
from workbench.rank import RankStep
from workbench.strategies import Strategy
from workbench.transformer import TransformerSpec


def fsdp_step(
    spec: TransformerSpec,
    strategy: str | type[Strategy],
    *,
    p: int,
    dtype: str = "float32",
    seed: int = 0,
    shard: str | None = None,
    keep_gathered: bool = False,
    checkpoint: str = "none",
    switch: str = "inside",
    accumulate: int = 1,
    timeout_s: float = 300.0,
    **options,
) -> RealStep:
    """Run one step as `run_step` does, with weights and their gradients cut over the ranks.

    Parameters
    ----------
    spec, strategy, p, dtype, seed, shard, checkpoint, switch, accumulate, timeout_s, **options
        As for `run_step`. Each rank must hold all weights otherwise: ulysses, ring, dsp.
    keep_gathered : bool
        Keep a branch's weights whole from the forward until its backward, rather than gather
        them again.

    Returns
    -------
    RealStep
        ``weight_bytes`` are the gathers, ``gradient_bytes`` the sums of gradients.

    Raises
    ------
    ValueError
        If the strategy cuts weights itself, or can't run this.
    """
    memory = {"checkpoint": checkpoint, "switch": switch, "accumulate": accumulate}
    cls, shard = _prepared(spec, strategy, p, dtype, shard, memory, options)

    started = time.perf_counter()
    ranks = run_local(
        lambda rank, comm: _rank_step(comm, spec, cls, dtype, seed, shard, keep_gathered, memory),
        p,
        timeout_s=timeout_s,
    )
    run = {"dtype": dtype, "seed": seed, "shard": shard}
    return compare(ranks, spec, cls, run, time.perf_counter() - started)


def fsdp_bytes(
    spec: TransformerSpec,
    strategy: str | type[Strategy],
    *,
    p: int,
    dtype: str = "float32",
    keep_gathered: bool = False,
    accumulate: int = 1,
    **options,
) -> dict[str, int]:
    """Bytes that one rank sends for weights and for their gradients in a step, by formula.

    With W the bytes of all weights and f = (p-1)/p: 2fW for ``"weights"``, one of them if they
    are kept gathered, and fW for ``"gradients"``; each for every part of the batch. The first dim
    of each weight is padded to a multiple of p.

    Examples
    --------
    >>> from workbench.transformer import PRESETS
    >>> W, sent = 4 * PRESETS["toy-video"].parameters, fsdp_bytes(PRESETS["toy-video"], "dsp", p=4)
    >>> sent["weights"] / (3 / 4 * W), sent["gradients"] / (3 / 4 * W)
    (2.0, 1.0)
    """
    memory = {"checkpoint": "none", "switch": "inside", "accumulate": accumulate}
    _prepared(spec, strategy, p, dtype, None, memory, options)
    part = sum(shard_size(s[0], p) * prod(s[1:]) for s in spec.weight_shapes().values())
    part *= getattr(torch, dtype).itemsize * accumulate
    gathers = 1 if keep_gathered else 2
    return {
        "weights": gathers * sent_bytes("all_gather", part, p),
        "gradients": sent_bytes("reduce_scatter", part * p, p),
    }


def _prepared(spec, strategy, p, dtype, shard, memory, options):
    cls, shard = prepared(spec, strategy, p, dtype, shard, None, memory, options)
    if cls.cut_weights or not cls.cuts_sequence or p < 2:
        raise ValueError(
            f"FSDP cuts weights that each of at least 2 ranks holds whole while tokens are cut; "
            f"got {cls.name}, p={p}. Strategies of this kind: ulysses, ring, dsp."
        )
    return cls, shard


def cut(model: Transformer, comm: Comm, keep_gathered: bool = False) -> None:
    """Cut the weights of each branch over the ranks of ``comm``; the first dim of each is cut."""
    mesh = DeviceMesh.from_group(comm.group, local_device().type)
    groups = [
        (branch, Site(place.layer, place.index, "fsdp.py"))
        for place, branch in zip(model.places, model.branches, strict=True)
    ]
    # The model itself comes last: what is left, such as learned positions, is its group.
    for module, site in [*groups, (model, Site(None, None, "fsdp.py"))]:
        fully_shard(module, mesh=mesh, reshard_after_forward=not keep_gathered)
        module.set_custom_all_gather(_Gather(comm, site))
        module.set_custom_reduce_scatter(_Scatter(comm, site))
        # Each rank's loss is a part of the whole one: gradients are summed, not averaged.
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)


def _rank_step(comm, spec, cls, dtype, seed, shard, keep_gathered, memory) -> dict:
    """One rank's share, as `workbench.rank.rank_step` returns it; gradients are put together."""
    step = _ShardedStep(comm, spec, cls, dtype, seed, shard, local_device(), **memory)
    cut(step.model, comm, keep_gathered)
    dist.barrier(comm.group)
    started = time.perf_counter()
    y, layout, loss = step.run()
    seconds, log = time.perf_counter() - started, list(comm.log)
    whole = {name: w.grad.full_tensor().cpu() for name, w in step.model.named_weights()}
    return {
        "output": y.detach().cpu(),
        "layout": step.held(layout),
        "loss": loss.item(),
        "gradients": {"input": step.x.grad.cpu(), **whole},
        "start": step.held(step.strategy.start),
        "part": comm.rank,
        "data": step.data.rank,
        "log": log,
        "seconds": [seconds],
    }


class _ShardedStep(RankStep):
    """A step whose gradients are summed by FSDP, during the backward."""

    def _sum_gradients(self) -> None:
        pass


class _Moved:
    """What FSDP asks of a collective: a buffer, and a call."""

    def __init__(self, comm: Comm, site: Site):
        self.comm, self.site = comm, site

    def allocate(self, size, *, dtype, device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)


class _Gather(_Moved, AllGather):
    def __call__(self, output_tensor, input_tensor, group, async_op=False) -> None:
        self.comm.gather_weights(output_tensor, input_tensor, self.site)


class _Scatter(_Moved, ReduceScatter):
    def __call__(self, output_tensor, input_tensor, group, op, async_op=False) -> None:
        assert op == dist.ReduceOp.SUM, op
        self.comm.scatter_gradients(output_tensor, input_tensor, self.site)
