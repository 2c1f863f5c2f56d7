"""Scaling curves, each with the band in which its times are expected."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from workbench.figures.style import INK, captioned, colour_of, log_ticks, styled
from workbench.planner import Point
from workbench.units import human_seconds

#: How much of a band's colour shows over what lies beneath it.
_PALE = 0.22


def scaling_chart(series: Mapping[str, Sequence[Point]]) -> go.Figure:
    """Seconds of a step over ranks, both axes logarithmic, with bands of errors that were found.

    A band is hatched where there are more ranks than any of those errors had: nothing was checked
    there.

    Parameters
    ----------
    series : mapping
        Name, which begins with a strategy's -> points, as `workbench.planner.scaling` returns
        them. Names after the first of a strategy are drawn dashed.
    """
    figure, seen = go.Figure(), set()
    for name, points in series.items():
        strategy = name.split(",")[0]
        dash = "dash" if strategy in seen else "solid"
        seen.add(strategy)
        checked = points[0].band.checked_to
        inside = [q for q in points if q.p <= checked]
        beyond = [q for q in points if q.p > checked]
        for part, pattern in ((inside, ""), (inside[-1:] + beyond, "/")):
            if len(part) > 1:
                figure.add_trace(_band(part, strategy, pattern))
        figure.add_trace(go.Scatter(
            x=[q.p for q in points], y=[q.cost.seconds for q in points], name=name,
            mode="lines+markers", line={"color": colour_of(strategy), "dash": dash},
        ))  # fmt: skip
    most = max(q.band.checked_to for points in series.values() for q in points)
    figure.add_vline(x=most, line={"color": INK, "dash": "dot", "width": 1})
    styled(figure, "Seconds of a step (predicted), and the band of errors", height=430)
    drawn = [q for points in series.values() for q in points]
    counts = sorted({q.p for q in drawn})
    ticks = log_ticks((end for q in drawn for end in (q.low_s, q.high_s)), human_seconds)
    figure.update_xaxes(title="GPUs", type="log", tickvals=counts, ticktext=list(map(str, counts)))
    figure.update_yaxes(title="seconds of a step", type="log", **ticks)
    return captioned(figure, _caption(series))


def _band(points: Sequence[Point], strategy: str, pattern: str) -> go.Scatter:
    colour = colour_of(strategy)
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    pale = f"rgba({red},{green},{blue},{_PALE})"
    ends = [(q.p, q.high_s) for q in points] + [(q.p, q.low_s) for q in reversed(points)]
    band = go.Scatter(
        x=[x for x, _ in ends], y=[y for _, y in ends], fill="toself", mode="none",
        fillcolor=pale, hoverinfo="skip", showlegend=False,
    )  # fmt: skip
    if pattern:
        band.update(fillpattern={"shape": pattern, "size": 6, "fgcolor": colour, "bgcolor": pale,
                                 "fgopacity": 0.5})  # fmt: skip
    return band


def _caption(series: Mapping[str, Sequence[Point]]) -> str:
    ends = []
    for name, points in series.items():
        last = points[-1]
        ends.append(
            f"{name}: {human_seconds(last.cost.seconds)} on {last.p}, "
            f"{human_seconds(last.low_s)} to {human_seconds(last.high_s)} if errors are like those"
        )
    band = next(iter(series.values()))[0].band
    return (
        f"Predicted. {'; '.join(ends)}. Bands hold {band.level:.0%} of such errors: {band.low:.2f} "
        f"to {band.high:.2f} times, from {band.source}. Beyond {band.checked_to} ranks nothing "
        "was checked, and the band (hatched) says only how far off we were before."
    )
