"""One rank's share of a case: what it held at every branch, what it logged, what it really sent."""

import contextlib
import datetime
import functools
import gc
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from workbench.collectives import Collective
from workbench.comm import Comm
from workbench.conformance.cases import Case
from workbench.launch import local_device, run_fake, run_local
from workbench.layout import Layout, trim_shard
from workbench.meter import Meter
from workbench.rank import Held, RankStep
from workbench.transformer import Place

#: A whole launch may take this many times as long as one collective.
LAUNCH_TIMEOUTS = 3
#: How long a tensor may outlive its step before it counts as kept [s].
LET_GO_S = 1.0


class Moment(NamedTuple):
    """The residual stream on one rank, before ("input") or after ("output") a branch.

    ``rank`` of ``size`` is its place along the axis of the layout.
    """

    place: Place
    when: str
    part: Tensor
    layout: Layout
    rank: int
    size: int


@dataclass(frozen=True)
class Attempt:
    """What one rank has seen of one step."""

    weights: dict[str, Tensor]
    stream: list[Moment]
    gradients: dict[str, Tensor]
    start: Held
    log: list[Collective]
    sent: list["Sent"]


@dataclass(frozen=True)
class Raised:
    """A rank raised in this layer and stage; of several, the first is the cause."""

    rank: int
    layer: int | None
    stage: int | None
    text: str
    at_s: float
    stream: list[Moment]


class Sent(NamedTuple):
    """One call of the process group; the layer and stage are those of the forward pass."""

    kind: str
    sent_bytes: int
    layer: int | None
    stage: int | None


class Share(NamedTuple):
    """What one rank has done in one launch.

    ``attempts`` ends early where the rank raised. The first case was run again, which gave
    ``again``, and once more, which left ``kept`` tensors behind.
    """

    attempts: list[Attempt | Raised]
    again: Attempt | Raised | None = None
    kept: int = 0


#: torch's op -> our kind, the position of the rank's buffer, bytes sent per byte of it.
_OPS = {
    "alltoall_base_": ("all_to_all", 1, lambda p: Fraction(p - 1, p)),
    "_allgather_base_": ("all_gather", 1, lambda p: p - 1),
    "_reduce_scatter_base_": ("reduce_scatter", 1, lambda p: Fraction(p - 1, p)),
    "allreduce_": ("all_reduce", 0, lambda p: Fraction(2 * (p - 1), p)),
    "send": ("ring_shift", 0, lambda p: 1),
}


class Witness(TorchDispatchMode):
    """List what is handed to torch's process groups, by arithmetic of its own."""

    def __init__(self, comm: Comm):
        super().__init__()
        self.comm = comm
        self.sent: list[Sent] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.split("::")[1]
        if "c10d" in func.namespace and name not in ("recv_", "barrier", "wait_tensor"):
            site = self.comm.site()
            self.sent.append(Sent(*self._bytes(name, args), site.layer, site.stage))
        return func(*args, **(kwargs or {}))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else every rank's first op imports a compiler: seconds

    @staticmethod
    def _bytes(name: str, args: tuple) -> tuple[str, int]:
        if name not in _OPS:
            return name, 0  # nothing that `Comm` uses: the kind alone gives it away
        kind, position, share = _OPS[name]
        buffer = args[position][0] if isinstance(args[position], list) else args[position]
        group = next(a for a in args if isinstance(a, torch.ScriptObject))
        p = dist.ProcessGroup.unbox(group).size()
        return kind, int(share(p) * buffer.numel() * buffer.element_size())


def faked(case: Case) -> Attempt | Raised:
    """Rank 0's share, on meta tensors."""
    with Meter():  # its numbers are not needed; it is faster on them than torch alone
        return run_fake(lambda rank, comm: attempt(comm, case, torch.device("meta")), case.p)


def on_ranks(cases: Sequence[Case], p: int, timeout_s: float) -> list[Share]:
    """Every rank's share of the cases, in one launch; it ends at the first that raises."""
    share = functools.partial(_share, cases=list(cases), timeout_s=timeout_s)
    return run_local(share, p, timeout_s=LAUNCH_TIMEOUTS * timeout_s)


def _share(rank: int, comm: Comm, cases: list[Case], timeout_s: float) -> Share:
    group = dist.new_group(timeout=datetime.timedelta(seconds=timeout_s))
    attempts: list[Attempt | Raised] = []
    for case in cases:
        attempts.append(attempt(Comm(comm.size, rank, group), case, local_device()))
        if isinstance(attempts[-1], Raised):
            return Share(attempts)
    again = attempt(Comm(comm.size, rank, group), cases[0], local_device())
    before = _live_tensors()
    attempt(Comm(comm.size, rank, group), cases[0], local_device())
    return Share(attempts, again, _kept_since(before))


def attempt(comm: Comm, case: Case, device: torch.device) -> Attempt | Raised:
    """Run one rank's share of a case, with rubbish in the padding of the input."""
    step, stream, witness = None, [], Witness(comm)
    try:
        with contextlib.nullcontext() if comm.group is None else witness:
            run = (case.cls, case.dtype, 0, case.shard, device, case.mesh)
            step = RankStep(comm, case.spec, *run, checkpoint=case.checkpoint)
            weights = {name: _kept(w) for name, w in step.model.named_weights()}
            start = step.held(step.strategy.start)
            _fill_padding(step.x, start)
            _watch(step, stream)
            step.run()
        return Attempt(
            weights, stream, {name: _kept(t.grad) for name, t in step.leaves()},
            start, list(comm.log), witness.sent,
        )  # fmt: skip
    except Exception as error:
        return _raised(comm, error, stream, [] if step is None else step.leaves())


def _raised(comm: Comm, error: Exception, stream: list[Moment], leaves: list) -> Raised:
    site, at_s = comm.site(), time.time()
    text = f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
    last = traceback.extract_tb(error.__traceback__)[-1]
    text += f" ({last.filename.rsplit('/', 1)[-1]}:{last.lineno}: {last.line})"
    lost = [name for name, leaf in leaves if leaf.grad is None and name != "input"]
    if lost and len(lost) + 1 < len(leaves):
        text += f"; no gradient has reached {lost[-1]}, nor {len(lost) - 1} other weights"
    return Raised(comm.rank, site.layer, site.stage, text, at_s, stream)


def _watch(step: RankStep, stream: list[Moment]) -> None:
    """While the model runs, append the residual stream around every branch to ``stream``.

    What a checkpoint computes again is left out: its gradients tell.
    """

    def seen(place, when, part, layout):
        if step.world.phase == "backward":
            return
        known = isinstance(layout, Layout)  # `arrange` may have returned anything
        along = step.strategy.along(layout) if known else step.world
        stream.append(Moment(place, when, _kept(part), layout, along.rank, along.size))

    def watch(place, branch):
        branch.register_forward_pre_hook(lambda _, given: seen(place, "input", *given[:2]))
        branch.register_forward_hook(lambda _, given, out: seen(place, "output", out, given[1]))

    for place, branch in zip(step.model.places, step.model.branches, strict=True):
        watch(place, branch)


def _fill_padding(x: Tensor, start: Held) -> None:
    with torch.no_grad():
        data = trim_shard(x, *start).clone()
        x.normal_(generator=None if x.is_meta else torch.Generator(x.device).manual_seed(9))
        trim_shard(x, *start).copy_(data)


def _kept(t: Tensor | None) -> Tensor | None:
    if t is None:
        return None
    return t.detach().clone() if t.is_meta else t.detach().clone().cpu()


def _kept_since(before: int) -> int:
    """Count the tensors more than ``before``; gloo lets go of its own a little after a wait."""
    until = time.monotonic() + LET_GO_S
    while (kept := _live_tensors() - before) > 0 and time.monotonic() < until:
        time.sleep(LET_GO_S / 20)
    return kept


def _live_tensors() -> int:
    """Count the tensors that Python holds."""
    gc.collect()
    kinds = Counter(map(type, gc.get_objects()))
    return sum(count for kind, count in kinds.items() if issubclass(kind, Tensor))
