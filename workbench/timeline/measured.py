"""The timeline of a step that really runs: from torch's profiler, joined with the log."""

import os
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile, record_function

from workbench.closed_form import prepared
from workbench.comm import Comm
from workbench.launch import local_device, run_local
from workbench.rank import RankStep
from workbench.strategies import Strategy
from workbench.timeline.spans import LANES, Span
from workbench.transformer import TransformerSpec

#: Kernels that are told apart; all else between collectives is one kind.
_KERNELS = {
    "aten::mm": "matmul",
    "aten::addmm": "matmul",
    "aten::bmm": "matmul",
    "aten::_scaled_dot_product_flash_attention_for_cpu": "attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward": "attention",
}
#: Elementwise kernels and whatever Python does between two kernels.
REST = "all else"
#: The profiler reports its own start and stop below this level of its log.
_QUIET = {"KINETO_LOG_LEVEL": "6"}
#: What `workbench.comm.Comm` calls its collectives in a trace, before their number in the log.
_COMM = "comm:"


class _Event(NamedTuple):
    """Something that a trace names; times are of one clock for all ranks [s]."""

    name: str
    start_s: float
    end_s: float


class _Traced(NamedTuple):
    """What one rank brings back."""

    step: _Event
    events: list[_Event]
    log: list


def measured_timeline(
    spec: TransformerSpec,
    strategy: str | type[Strategy],
    *,
    p: int = 2,
    dtype: str = "float32",
    seed: int = 0,
    shard: str | None = None,
    checkpoint: str = "none",
    switch: str = "inside",
    accumulate: int = 1,
    warm_up: int = 1,
    threads: int = 1,
    timeout_s: float = 300.0,
    **options,
) -> list[Span]:
    """Run a training step on ``p`` gloo processes under torch's profiler.

    Parameters
    ----------
    spec, strategy, p, dtype, seed, shard, checkpoint, switch, accumulate, threads, timeout_s,
    **options
        As for `run_step`.
    warm_up : int
        Steps that run before the one that is traced.

    Returns
    -------
    list of Span
        Of all ranks. A collective's ``index`` is its record's place in the log. It is cut in two
        where its rank was not the last to come: until the last one came it could only wait.

    Raises
    ------
    ValueError
        If the strategy can't run this, needs a mesh of several axes, or would run on GPUs.
    RankError, TimeoutError
        As `run_local`.

    Notes
    -----
    Ranks are laid on one time axis by the machine's monotonic clock. A ring's transfer is drawn
    as hidden from when both neighbours have asked for it until its rank waits for it: it may have
    been over earlier. The profiler slows small kernels down. Left out: elementwise kernels by
    themselves; they are in "all else".
    """
    memory = {"checkpoint": checkpoint, "switch": switch, "accumulate": accumulate, "fsdp": False}
    cls, shard = prepared(spec, strategy, p, dtype, shard, None, memory, options)
    if torch.cuda.device_count() >= p:
        raise ValueError(
            f"with {torch.cuda.device_count()} GPUs {p} ranks would run on them, where a kernel's "
            "launch is not its run; set CUDA_VISIBLE_DEVICES='' to measure processes of the CPU"
        )

    ranks = run_local(
        lambda rank, comm: _on_rank(comm, spec, cls, dtype, seed, shard, memory, warm_up),
        p,
        threads=threads,
        timeout_s=timeout_s,
    )
    return joined(ranks)


def _on_rank(comm: Comm, spec, cls, dtype, seed, shard, memory, warm_up) -> _Traced:
    os.environ.update(_QUIET)  # of this rank's own process
    step = RankStep(comm, spec, cls, dtype, seed, shard, local_device(), **memory)
    for _ in range(warm_up):
        step.reset()
        step.run()
    step.reset()
    return _traced_run(step, comm)


def _traced_run(step: RankStep, comm: Comm) -> _Traced:
    with profile(activities=[ProfilerActivity.CPU]) as prof:
        if comm.group is not None:
            dist.barrier(comm.group)
        with record_function("clock"):
            now = time.perf_counter()
        with record_function("step"):
            step.run()
    found = {}
    events = []
    for event in prof.events():
        name = event.name
        start, end = (1e-6 * t for t in (event.time_range.start, event.time_range.end))
        if name in ("clock", "step"):
            found[name] = _Event(name, start, end)
        elif name in _KERNELS or name == "relayout" or name.startswith(_COMM):
            events.append(_Event(name, start, end))
    offset = now - (found["clock"].start_s + found["clock"].end_s) / 2
    moved = [_Event(e.name, e.start_s + offset, e.end_s + offset) for e in [found["step"], *events]]
    return _Traced(moved[0], moved[1:], comm.log)


def joined(ranks: list[_Traced]) -> list[Span]:
    """Spans of all ranks, from their traces and logs."""
    zero = min(rank.step.start_s for rank in ranks)
    came = [_first_starts(rank.events) for rank in ranks]
    spans: list[Span] = []
    for rank, traced in enumerate(ranks):
        for event in _in_a_row(traced.step, traced.events):
            spans += _spans_of(event, rank, traced.log, came, zero)
        spans += _in_flight(rank, traced, came, zero)
    return spans


def _first_starts(events: Iterable[_Event]) -> dict[int, float]:
    """When a rank came to each of its collectives."""
    came: dict[int, float] = {}
    for event in events:
        if event.name.startswith(_COMM):
            index = _index(event)
            came[index] = min(event.start_s, came.get(index, event.start_s))
    return came


def _index(event: _Event) -> int:
    return int(event.name.removeprefix(_COMM))


def _in_a_row(step: _Event, events: Iterable[_Event]) -> Iterator[_Event]:
    """Cut nested events into one row without gaps: the innermost has the time."""
    open_, at = [(REST, step.end_s)], step.start_s

    def until(end: float) -> Iterator[_Event]:
        nonlocal at
        if end > at:
            yield _Event(open_[-1][0], at, end)
            at = end

    for event in sorted(events, key=lambda e: (e.start_s, -e.end_s)):
        while len(open_) > 1 and open_[-1][1] <= event.start_s:
            yield from until(open_[-1][1])
            open_.pop()
        yield from until(event.start_s)
        open_.append((event.name, min(event.end_s, open_[-1][1])))
    while open_:
        yield from until(open_[-1][1])
        open_.pop()


def _spans_of(event: _Event, rank: int, log: list, came: list, zero: float) -> Iterator[Span]:
    """The spans of one event: a collective's waiting and its transfer are apart."""
    start, end = event.start_s - zero, event.end_s - event.start_s
    if not event.name.startswith(_COMM):
        part = "relayout" if event.name == "relayout" else "compute"
        kind = "collectives" if part == "relayout" else _KERNELS.get(event.name, REST)
        yield Span(rank, LANES[0], part, kind, start, end)
        return
    record, index = log[_index(event)], _index(event)
    others = came if record.kind != "ring_shift" else [came[rank], came[(rank - 1) % len(came)]]
    last = min(max(event.start_s, *(c[index] for c in others)), event.end_s)
    if record.kind == "ring_shift" and event.start_s == came[rank][index]:
        last = event.start_s  # it only asks for the transfer, and waits for nobody
    place = _place(record, index)
    for part, begin, until in (
        ("wait", event.start_s, last), ("communication", last, event.end_s),
    ):  # fmt: skip
        if until > begin:
            yield Span(rank, LANES[0], part, record.kind, begin - zero, until - begin, **place)


def _in_flight(rank: int, traced: _Traced, came: list, zero: float) -> Iterator[Span]:
    """A ring's transfers while their rank does something else."""
    asked: dict[int, float] = {}
    free = 0.0
    for event in sorted(traced.events, key=lambda e: e.start_s):
        if not event.name.startswith(_COMM) or traced.log[_index(event)].kind != "ring_shift":
            continue
        index = _index(event)
        if index not in asked:
            asked[index] = event.end_s
            continue
        begin = max(asked[index], came[(rank - 1) % len(came)][index], free)
        if event.start_s > begin:
            place = _place(traced.log[index], index)
            length = event.start_s - begin
            yield Span(rank, LANES[1], "hidden", "ring_shift", begin - zero, length, **place)
            free = event.start_s


def _place(record, index: int) -> dict[str, Any]:
    return {"phase": record.phase, "layer": record.layer, "stage": record.stage, "index": index}
