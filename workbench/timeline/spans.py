"""One stretch of time of one rank, and what can be made of many: sums, and a file of traces."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Part = Literal["compute", "communication", "relayout", "overhead", "wait", "hidden"]

#: What a rank spends its time on. ``"communication"`` is exposed: nothing is computed meanwhile;
#: ``"hidden"`` goes on beside the others; ``"wait"`` is for the rank that comes last.
PARTS: tuple[Part, ...] = ("compute", "communication", "relayout", "overhead", "wait", "hidden")
#: Rows of a rank: what it does one after another, and what travels beside that.
LANES = ("step", "behind it", "gradients behind it")


@dataclass(frozen=True)
class Span:
    """A stretch of time in which one rank does one thing.

    Parameters
    ----------
    rank : int
        Whose it is.
    lane : str
        One of `LANES`; spans of one lane do not overlap.
    part : str
        One of `PARTS`.
    kind : str
        A kind of kernel or of collective, such as ``"matmul"`` or ``"all_to_all"``.
    start_s, seconds : float
        Since the step began, and how long [s].
    phase : str
        ``"forward"``, ``"backward"``, ``"gradients"`` or ``"weights"``; ``""`` if unknown.
    layer, stage : int or None
        Where in the model.
    count : int
        Equal collectives that it stands for.
    index : int or None
        The record's place in the log, of a measured collective.
    """

    rank: int
    lane: str
    part: Part
    kind: str
    start_s: float
    seconds: float
    phase: str = ""
    layer: int | None = None
    stage: int | None = None
    count: int = 1
    index: int | None = None

    @property
    def end_s(self) -> float:
        """When it is over [s]."""
        return self.start_s + self.seconds

    @property
    def name(self) -> str:
        """What it is, in a few words."""
        said = {"wait": f"wait: {self.kind}", "relayout": f"copies for {self.kind}"}
        name = said.get(self.part, self.kind)
        return f"{name} x {self.count}" if self.count > 1 else name


def totals(spans: Iterable[Span], rank: int = 0) -> dict[str, float]:
    """Seconds of each part of `PARTS` of one rank.

    Examples
    --------
    >>> spans = [Span(0, "step", "compute", "matmul", 0.0, 2.0),
    ...          Span(0, "step", "communication", "all_to_all", 2.0, 1.0),
    ...          Span(0, "step", "compute", "attention", 3.0, 0.5)]
    >>> sums = totals(spans)
    >>> sums["compute"], sums["communication"], sums["hidden"]
    (2.5, 1.0, 0.0)
    """
    sums = dict.fromkeys(PARTS, 0.0)
    for span in spans:
        if span.rank == rank:
            sums[span.part] += span.seconds
    return sums


def step_seconds(spans: Iterable[Span]) -> float:
    """When the last rank has done its last thing [s]."""
    return max((span.end_s for span in spans if span.lane == LANES[0]), default=0.0)


def to_chrome(spans: Iterable[Span]) -> dict:
    """Spans in the trace event format that chrome://tracing and ui.perfetto.dev open.

    Ranks are processes, lanes are threads, times are in microseconds. Write it to a file by
    ``json.dump``.

    References
    ----------
    Google, "Trace Event Format", complete events (``ph`` "X") and metadata events ("M").

    Examples
    --------
    >>> span = Span(1, "step", "compute", "matmul", 2e-3, 5e-4, "forward", layer=0, stage=1)
    >>> event = to_chrome([span])["traceEvents"][-1]
    >>> event["ph"], event["ts"], event["dur"], event["pid"], event["tid"]
    ('X', 2000.0, 500.0, 1, 0)
    """
    spans = list(spans)
    rows = sorted({(span.rank, LANES.index(span.lane)) for span in spans})
    events = [_named("process_name", rank, 0, f"rank {rank}") for rank in sorted(dict(rows))]
    events += [_named("thread_name", rank, lane, LANES[lane]) for rank, lane in rows]
    events += [_event(span) for span in spans]
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _named(what: str, rank: int, lane: int, name: str) -> dict:
    return {"ph": "M", "name": what, "pid": rank, "tid": lane, "args": {"name": name}}


def _event(span: Span) -> dict:
    said = {key: getattr(span, key) for key in ("phase", "layer", "stage", "count", "index")}
    return {
        "ph": "X", "name": span.name, "cat": span.part, "ts": span.start_s * 1e6,
        "dur": span.seconds * 1e6, "pid": span.rank, "tid": LANES.index(span.lane),
        "args": {key: value for key, value in said.items() if value not in (None, "")},
    }  # fmt: skip
