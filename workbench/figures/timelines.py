"""When each rank computes, copies, sends and waits: predicted and measured, one under the other."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.figures.style import INK, KINDS, captioned, styled
from workbench.timeline import LANES, PARTS, Span, step_seconds, totals
from workbench.timeline.measured import REST
from workbench.units import human_seconds

#: Colours of what is no collective: greys for computing, one colour for copies.
_OTHERS = {
    "matmul": "#999999", "attention": "#555555", "elementwise": "#CCCCCC", REST: "#B8B0A0",
    "copies": "#EE8866", "launches": "#EEEEEE", "waiting": "#FFFFFF",
}  # fmt: skip
_WORDS = {"relayout": "copies", "overhead": "launches", "wait": "waiting"}
_SAID = {
    "compute": "computing", "else": "all else, such as Python between kernels",
    "communication": "exposed communication", "relayout": "copies",
    "overhead": "launches and the like", "wait": "waiting for the last rank",
}  # fmt: skip


def timeline(
    runs: Mapping[str, Sequence[Span]], title: str = "One training step, rank by rank"
) -> go.Figure:
    """Draw spans as bars over time, each run in a panel of its own, with its own time axis.

    Parameters
    ----------
    runs : mapping of str to sequence of Span
        What each panel is called, such as ``"predicted"``, and its spans.
    title : str
        Of the whole figure.
    """
    figure = make_subplots(len(runs), 1, subplot_titles=list(runs), vertical_spacing=0.3)
    shown: set[str] = set()
    rows = 0
    for panel, spans in enumerate(runs.values(), 1):
        places = sorted({(span.rank, LANES.index(span.lane)) for span in spans})
        labels = {place: _label(*place) for place in places}
        rows += len(places)
        for kind in dict.fromkeys(map(_kind, spans)):
            mine = [span for span in spans if _kind(span) == kind]
            figure.add_trace(_bars(kind, mine, labels, kind not in shown), panel, 1)
            shown.add(kind)
        figure.update_yaxes(
            categoryorder="array", categoryarray=list(labels.values())[::-1], row=panel, col=1
        )
        end = 1e3 * step_seconds(spans)
        figure.update_xaxes(title="time [ms]", range=[0, 1.01 * end], row=panel, col=1)
    styled(figure, title, height=170 + 110 * len(runs) + 36 * rows, barmode="overlay", bargap=0.25,
           legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom",
                   "traceorder": "normal"})  # fmt: skip
    figure.update_layout(margin={"l": 170, "b": 110})
    return captioned(figure, " ".join(_sentence(name, spans) for name, spans in runs.items()))


def _label(rank: int, lane: int) -> str:
    return f"rank {rank}" if lane == 0 else f"rank {rank}: {LANES[lane]}"


def _kind(span: Span) -> str:
    """What a span is called in the legend."""
    return _WORDS.get(span.part, span.kind)


def _bars(kind: str, spans: list[Span], labels: dict, legend: bool) -> go.Bar:
    places = [f", layer {s.layer}, stage {s.stage}" if s.layer is not None else "" for s in spans]
    hover = [
        f"{s.name}{place}{', ' + s.phase if s.phase else ''}"
        + (f", record {s.index} of the log" if s.index is not None else "")
        + f"<br>{human_seconds(s.seconds)} from {human_seconds(s.start_s)}"
        for s, place in zip(spans, places, strict=True)
    ]
    pattern = {"shape": "/", "fgcolor": INK, "size": 5} if kind == "waiting" else None
    return go.Bar(
        name=kind, legendgroup=kind, showlegend=legend, orientation="h",
        y=[labels[span.rank, LANES.index(span.lane)] for span in spans],
        base=[1e3 * span.start_s for span in spans], x=[1e3 * span.seconds for span in spans],
        marker={"color": (_OTHERS | KINDS)[kind], "line": {"width": 0}, "pattern": pattern},
        customdata=hover, hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip


def _sentence(name: str, spans: Sequence[Span]) -> str:
    """The shares of a run, of all its ranks together."""
    ranks = sorted({span.rank for span in spans})
    if not ranks:
        return f"{name[:1].upper()}{name[1:]}: nothing."
    sums = {part: sum(totals(spans, rank)[part] for rank in ranks) for part in PARTS}
    sums["else"] = sum(span.seconds for span in spans if span.kind == REST)
    sums["compute"] -= sums["else"]
    whole = sum(sums[part] for part in _SAID)
    shares = [f"{said} {sums[part] / whole:.0%}" for part, said in _SAID.items() if sums[part] > 0]
    hidden = sums["hidden"] / len(ranks)
    more = f"; {human_seconds(hidden)} of transfers lie behind it" if hidden > 0 else ""
    seconds = human_seconds(step_seconds(spans))
    return f"{name[:1].upper()}{name[1:]}: {seconds} a step, {', '.join(shares)}{more}."
