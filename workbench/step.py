"""One training step, three ways: faked, run for real, and as a closed form."""

import statistics
import time
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from workbench.collectives import Collective, Phase, sent_bytes
from workbench.comm import Comm
from workbench.launch import local_device, run_fake, run_local
from workbench.layout import Layout, shard_size, take_shard, trim_shard
from workbench.meter import Meter
from workbench.strategies import Strategy, choose_shard, select
from workbench.transformer import Transformer, TransformerSpec, initial_weights

#: dtypes that a step runs in.
DTYPES = ("float32", "bfloat16", "float64")


@dataclass(frozen=True)
class Step:
    """What one rank communicated in one training step.

    Attributes
    ----------
    strategy, p, dtype : str, int, str
        What was run.
    log : list of Collective
        All collectives of rank 0 in order. Every rank's log is equal to it.
    """

    strategy: str
    p: int
    dtype: str
    log: list[Collective] = field(repr=False)

    def bytes_of(self, *phases: Phase) -> int:
        """Bytes that one rank sends in the given phases."""
        return sum(record.sent_bytes for record in self.log if record.phase in phases)

    @property
    def forward_bytes(self) -> int:
        """Bytes of activations that one rank sends in the forward pass."""
        return self.bytes_of("forward")

    @property
    def backward_bytes(self) -> int:
        """Bytes of activations' gradients that one rank sends in the backward pass."""
        return self.bytes_of("backward")

    @property
    def sent_bytes(self) -> int:
        """Forward and backward together; the weights' gradients are apart, as in the paper."""
        return self.bytes_of("forward", "backward")

    @property
    def gradient_bytes(self) -> int:
        """Bytes that one rank sends to sum the gradients of replicated weights."""
        return self.bytes_of("gradients")


@dataclass(frozen=True)
class FakedStep(Step):
    """A step of rank 0 on meta tensors: exact logs for any number of ranks, no values.

    Attributes
    ----------
    flops : int
        Matrix products and attention of one rank.
    peak_bytes : int
        Most bytes of tensors alive at once on one rank, weights and gradients included, without
        the optimizer's state and scratch memory inside kernels.
    """

    flops: int = 0
    peak_bytes: int = 0


@dataclass(frozen=True)
class RealStep(Step):
    """A step that ran on p ranks, against the same step on one device.

    Attributes
    ----------
    max_error, grad_error : float
        Largest absolute difference from one device, over the largest absolute value of its
        output, and of all its gradients.
    seconds : float
        One step of the slowest rank [s]; the median, if it was repeated.
    launch_seconds : float
        All else: starting the ranks, making weights, collecting results [s].
    loss : float
        Mean square of the output: a stand-in that gives every weight a gradient.
    output : Tensor
        The whole output, put together from the ranks' parts.
    gradients : dict of str to Tensor
        Whole gradients of all weights by name, and of the input as ``"input"``.
    """

    max_error: float = 0.0
    grad_error: float = 0.0
    seconds: float = 0.0
    launch_seconds: float = 0.0
    loss: float = 0.0
    output: Tensor = field(default=None, repr=False)
    gradients: dict[str, Tensor] = field(default_factory=dict, repr=False)


def fake_step(
    spec: TransformerSpec,
    strategy: str | type[Strategy],
    *,
    p: int,
    dtype: str = "float32",
    seed: int = 0,
    shard: str | None = None,
) -> FakedStep:
    """Go through one training step of rank 0 on meta tensors; any ``p``, nothing is sent.

    Parameters
    ----------
    spec : TransformerSpec
        The model and its input.
    strategy : str or class
        A key of `STRATEGIES`, or a subclass of `Strategy`.
    p : int
        Ranks.
    dtype : {"float32", "bfloat16", "float64"}
        Of weights and activations.
    seed : int
        Has no influence here; taken so that calls look like `run_step`'s.
    shard : str or None
        The dim that is cut before the first stage; ``None`` takes the one that costs the fewest
        bytes. Strategies that cut no dim ignore it.

    Raises
    ------
    ValueError
        If the strategy can't run this; the message names those that can.

    Examples
    --------
    >>> from workbench.transformer import PRESETS
    >>> faked = fake_step(PRESETS["toy-video"], "dsp", p=4)
    >>> faked.forward_bytes == closed_form_bytes(PRESETS["toy-video"], "dsp", p=4, phase="forward")
    True
    """
    cls, shard = _prepare(spec, strategy, p, dtype, shard)

    def on_rank(rank, comm):
        step = _RankStep(comm, spec, cls, dtype, seed, shard, torch.device("meta"))
        with Meter(leaf for _, leaf in step.leaves()) as meter:
            step.run()
        return FakedStep(cls.name, p, dtype, comm.log, meter.flops, meter.peak_bytes)

    return run_fake(on_rank, p)


def run_step(
    spec: TransformerSpec,
    strategy: str | type[Strategy],
    *,
    p: int,
    dtype: str = "float32",
    seed: int = 0,
    shard: str | None = None,
    repeats: int = 1,
    threads: int = 1,
    timeout_s: float = 300.0,
) -> RealStep:
    """Run one training step on ``p`` processes and compare it with one device.

    Parameters
    ----------
    spec, strategy, p, dtype, seed, shard
        As for `fake_step`. Weights and input are drawn from ``seed``, the same for every
        strategy and ``p``.
    repeats : int
        Run the same step this many times, for its median time. The log is of the last one.
    threads, timeout_s
        As for `run_local`.

    Raises
    ------
    ValueError
        If the strategy can't run this; raised before anything is launched.
    RankError, TimeoutError
        As `run_local`.
    """
    cls, shard = _prepare(spec, strategy, p, dtype, shard)
    started = time.perf_counter()
    ranks = run_local(
        lambda rank, comm: rank_step(comm, spec, cls, dtype, seed, shard, repeats),
        p,
        threads=threads,
        timeout_s=timeout_s,
    )
    return _compare(ranks, spec, cls, dtype, seed, time.perf_counter() - started)


def closed_form_bytes(
    spec: TransformerSpec,
    strategy: str | type[Strategy],
    *,
    p: int,
    phase: Phase | None = None,
    dtype: str = "float32",
    shard: str | None = None,
) -> int:
    """Bytes that one rank sends in one training step, by formula.

    Parameters
    ----------
    spec, strategy, p, dtype, shard
        As for `fake_step`.
    phase : {None, "forward", "backward", "gradients"}
        ``None`` is forward + backward: what moves activations. ``"gradients"`` is the all-reduce
        of replicated weights' gradients, as one flat bucket.

    Raises
    ------
    ValueError
        If the strategy can't run this, or the phase is unknown.
    """
    cls, shard = _prepare(spec, strategy, p, dtype, shard)
    if phase not in (None, "forward", "backward", "gradients"):
        raise ValueError(f"phase must be None, 'forward', 'backward' or 'gradients', got {phase!r}")
    if p == 1:
        return 0
    itemsize = getattr(torch, dtype).itemsize
    if phase == "gradients":
        return _gradient_bytes(spec, cls, p, itemsize)
    forward = backward = 0
    if phase in (None, "forward"):
        forward = cls.forward_elements(spec, p, shard, spec.branches)
    if phase in (None, "backward"):
        backward = cls.backward_elements(spec, p, shard, spec.branches)
    return (forward + backward) * itemsize


def _gradient_bytes(spec, cls, p: int, itemsize: int) -> int:
    if not cls.cuts_sequence:
        return 0
    layer = replace(spec, num_layers=1).weight_shapes()
    count = spec.num_layers * sum(prod(s) for n, s in layer.items() if cls.cut_dim(n) is None)
    return sent_bytes("all_reduce", shard_size(count, p) * p * itemsize, p) if count else 0


def _prepare(spec, strategy, p, dtype, shard) -> tuple[type[Strategy], str | None]:
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}; got {dtype!r}")
    cls = select(strategy, spec, p)
    return cls, choose_shard(cls, spec, p, spec.branches, shard)


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
    step, seconds = _RankStep(comm, spec, cls, dtype, seed, shard, local_device()), []
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


class _RankStep:
    """One rank's model and input, and the step itself."""

    def __init__(self, comm, spec, cls, dtype, seed, shard, device):
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


def _compare(ranks, spec, cls, dtype, seed, wall_s) -> RealStep:
    """Put the ranks' parts together and hold them against one device."""
    p = len(ranks)
    assert all(r["log"] == ranks[0]["log"] for r in ranks), "the ranks' logs differ"
    one = rank_step(Comm(1), spec, Strategy, dtype, seed)
    whole = _join([r["output"] for r in ranks], ranks[0]["layout"])
    gradients = {
        name: _join_gradient(name, [r["gradients"][name] for r in ranks], cls, ranks[0]["start"])
        for name in ranks[0]["gradients"]
    }
    losses = [r["loss"] for r in ranks]
    seconds = [max(times) for times in zip(*(r["seconds"] for r in ranks), strict=True)]
    return RealStep(
        cls.name, p, dtype, ranks[0]["log"],
        max_error=_error({"output": whole}, {"output": one["output"]}),
        grad_error=_error(gradients, one["gradients"]),
        seconds=statistics.median(seconds),
        launch_seconds=wall_s - sum(seconds),
        loss=sum(losses) if ranks[0]["layout"].split else losses[0],
        output=whole,
        gradients=gradients,
    )  # fmt: skip


def _join(parts: list[Tensor], layout: Layout) -> Tensor:
    if layout.split is None:
        return parts[0]
    trimmed = [trim_shard(part, layout, r, len(parts)) for r, part in enumerate(parts)]
    return torch.cat(trimmed, layout.position(layout.split))


def _join_gradient(name, parts, cls, start) -> Tensor:
    if name == "input":
        return _join(parts, start)
    dim = cls.cut_dim(name)
    return parts[0] if dim is None else torch.cat(parts, dim)


def _error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Largest absolute difference over the largest absolute value, of all tensors together."""
    largest = max(t.abs().max().item() for t in expected.values())
    worst = [(found[name].double() - t.double()).abs().max() for name, t in expected.items()]
    return torch.stack(worst).max().item() / largest  # NaN stays NaN
