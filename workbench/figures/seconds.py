"""Predicted seconds: what a step is made of, and how it changes with a size or a machine."""

from collections.abc import Mapping
from math import log

import plotly.graph_objects as go

from workbench.cost import Cost
from workbench.figures.style import INK, captioned, colour_of, log_ticks, styled
from workbench.units import human_seconds

#: Parts of a step: attribute of `Cost` -> its name and colour.
#: Source: Paul Tol's light qualitative scheme, safe for the colour-blind, made for black labels.
PARTS: dict[str, tuple[str, str]] = {
    "compute_s": ("compute", "#77AADD"),
    "exposed_communication_s": ("communication, not hidden", "#EE8866"),
    "relayout_s": ("copies of a re-layout", "#EEDD88"),
    "overhead_s": ("launches and fixed cost", "#DDDDDD"),
}
#: A part narrower than this share of the longest bar has no room for its label.
_LEGIBLE = 0.03
_SECONDS = "seconds of a step"


def step_parts(
    costs: Mapping[str, Cost], title: str = "What a step is made of (predicted)"
) -> go.Figure:
    """One stacked bar a step: computing, communication that nothing hides, copies, overhead.

    Parameters
    ----------
    costs : mapping
        Name -> what `predict` found.
    title : str
        Of the whole figure.
    """
    figure = go.Figure()
    longest = max(cost.seconds for cost in costs.values())
    for part, (label, colour) in PARTS.items():
        seconds = [getattr(cost, part) for cost in costs.values()]
        shares = [s / cost.seconds for s, cost in zip(seconds, costs.values(), strict=True)]
        figure.add_trace(go.Bar(
            x=seconds, y=list(costs), orientation="h", name=label, marker_color=colour,
            text=[f"{share:.0%}" if s > _LEGIBLE * longest else ""
                  for s, share in zip(seconds, shares, strict=True)],
            textposition="inside", insidetextanchor="middle", textangle=0,
        ))  # fmt: skip
    for name, cost in costs.items():
        share = cost.exposed_communication_s / cost.seconds
        figure.add_annotation(x=cost.seconds, y=name, text=f" communication {share:.1%}",
                              showarrow=False, xanchor="left")  # fmt: skip
    styled(figure, title, barmode="stack",
           height=170 + 42 * len(costs),
           legend={"orientation": "h", "y": -0.3, "traceorder": "normal"})  # fmt: skip
    figure.update_xaxes(title="seconds", range=[0, 1.35 * longest])
    figure.update_yaxes(autorange="reversed", automargin=True)
    first, last = (pick(costs, key=lambda name: costs[name].seconds) for pick in (min, max))
    most = max(costs, key=lambda name: costs[name].exposed_communication_s / costs[name].seconds)
    share = costs[most].exposed_communication_s / costs[most].seconds
    return captioned(
        figure,
        f"Predicted: {first} takes {human_seconds(costs[first].seconds)}, {last} "
        f"{human_seconds(costs[last].seconds)}. Communication that nothing hides weighs most in "
        f"{most}: {share:.0%} of its step.",
    )


def time_curves(
    series: Mapping[str, Mapping[float, float]], x: str, relative_to: str | None = None,
    y: str = _SECONDS,
) -> go.Figure:  # fmt: skip
    """Lines of seconds, both axes logarithmic; a dotted line where another one becomes the lowest.

    Parameters
    ----------
    series : mapping
        Name -> number -> seconds [s]; a name begins with a strategy's, whose colour it takes.
        Numbers at which something can't run are not in it.
    x : str
        What the numbers are.
    relative_to : str, optional
        A name: all times are divided by its time at the same number.
    y : str
        What the values are, if not seconds.
    """
    figure = go.Figure()
    for name, at in series.items():
        base = at if relative_to is None else series[relative_to]
        numbers = [number for number in at if number in base]
        values = [at[n] / (1 if relative_to is None else base[n]) for n in numbers]
        figure.add_trace(go.Scatter(
            x=numbers, y=values, name=name, mode="lines+markers",
            line={"color": colour_of(name.split()[0]), "dash": _dash(name)},
        ))  # fmt: skip
    changes = lowest_changes(series)
    for below, above, old, new in changes:
        place = _crossing(series, below, above, old, new)
        figure.add_vline(x=place, line={"color": INK, "dash": "dot", "width": 1})
    title = y if relative_to is None else f"{y}, in times {relative_to}'s"
    styled(figure, f"{title} (predicted)", height=400)
    drawn = [value for trace in figure.data for value in trace.y]
    figure.update_xaxes(title=x, type="log", **log_ticks(n for at in series.values() for n in at))
    figure.update_yaxes(
        title=title, type="log", **log_ticks(drawn, *([_tick] if title == _SECONDS else []))
    )
    return captioned(figure, _curves_caption(series, x, changes))


def _tick(seconds: float) -> str:
    """On one axis in one unit from a second on, so that it reads as powers of ten."""
    return f"{seconds:,g} s" if seconds >= 1 else human_seconds(seconds)


def _crossing(series, below: float, above: float, old: str, new: str) -> float:
    """Where the two lines cross as they are drawn; halfway if one of them begins in between."""
    ends = [n for n in (below, above) if n in series[old] and n in series[new]]
    if len(ends) < 2:
        return (below * above) ** 0.5
    first, last = (log(series[old][n] / series[new][n]) for n in ends)
    return below * (above / below) ** (first / (first - last))


def _dash(name: str) -> str:
    return "dash" if " " in name else "solid"


def lowest_changes(
    series: Mapping[str, Mapping[float, float]],
) -> list[tuple[float, float, str, str]]:
    """Find neighbouring numbers between which another of the series becomes the lowest.

    Examples
    --------
    >>> lowest_changes({"a": {1: 1.0, 2: 2.0, 4: 4.0}, "b": {1: 3.0, 2: 3.0, 4: 3.0}})
    [(2, 4, 'a', 'b')]
    """
    numbers = sorted({number for at in series.values() for number in at})
    found, before = [], None
    for number in numbers:
        here = {name: at[number] for name, at in series.items() if number in at}
        lowest = min(here, key=here.get)
        if before is not None and before[1] != lowest:
            found.append((before[0], number, before[1], lowest))
        before = number, lowest
    return found


def _curves_caption(series, x: str, changes) -> str:
    numbers = sorted({number for at in series.values() for number in at})
    ends = []
    for number in (numbers[0], numbers[-1]):
        here = {name: at[number] for name, at in series.items() if number in at}
        first, last = (pick(here, key=here.get) for pick in (min, max))
        times = f", {last} {here[last] / here[first]:.3g} times that" if last != first else ""
        ends.append(f"{x[:1].upper()}{x[1:]}: at {number:,g} {first} is lowest{times}.")
    said = [f"Between {low:,g} and {high:,g} {new} falls below {old}." for low, high, old, new
            in changes]  # fmt: skip
    return " ".join([*ends, *(said or ["The lowest is the same everywhere."])])
