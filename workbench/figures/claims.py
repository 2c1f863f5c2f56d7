"""How far each claim's effect is from 0, in units of the smallest effect that was of interest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import copysign, floor, log10

import plotly.graph_objects as go

from workbench.figures.style import INK, PALE, captioned, styled

#: Colour and mark of each verdict. Colours: Okabe & Ito (2008), as for the strategies.
VERDICTS: dict[str, tuple[str, str]] = {
    "supported": ("#009E73", "circle"),
    "contradicted": ("#D55E00", "x"),
    "not at this scale": ("#7F7F7F", "square"),
}
#: Ticks of the axis, in smallest effects.
_TICKS = (0, 1, 3, 10, 30, 100, 300)


@dataclass(frozen=True)
class Effect:
    """One claim in a forest plot; ``effect``, ``low`` and ``high`` are in ``unit``."""

    effect: float
    low: float
    high: float
    smallest: float
    unit: str
    verdict: str


def place(multiple: float) -> float:
    """Where a multiple of the smallest effect stands: ``sign(x) log10(1 + |x|)``.

    Examples
    --------
    >>> place(0), place(9), place(-9)
    (0.0, 1.0, -1.0)
    """
    return copysign(log10(1 + abs(multiple)), multiple) if multiple else 0.0


def forest(effects: Mapping[str, Effect]) -> go.Figure:
    """A point and an interval for each claim; right of the band speaks for it.

    Parameters
    ----------
    effects : mapping
        Claim -> its effect with interval, its smallest effect of interest, and its verdict.
    """
    figure = go.Figure()
    for said, (colour, mark) in VERDICTS.items():
        mine = {name: each for name, each in effects.items() if each.verdict == said}
        if mine:
            figure.add_trace(_points(said, mine, colour, mark))
    figure.add_vrect(x0=place(-1), x1=place(1), fillcolor=PALE, line_width=0, layer="below")
    figure.add_vline(x=0, line={"color": INK, "width": 1})
    styled(figure, "Effect of each claim", height=190 + 24 * len(effects))
    ends = [v / e.smallest for e in effects.values() for v in (e.low, e.high)] or [0.0]
    most = max(3.0, *map(abs, ends))
    shown = [tick for tick in _TICKS if tick <= most * 1.2]
    ticks = [*(-tick for tick in shown[:0:-1]), *shown]
    figure.update_xaxes(
        title="effect / smallest effect of interest (spaced by log of 1 + its size)",
        tickvals=[place(tick) for tick in ticks],
        ticktext=[f"{tick:+d}" if tick else "0" for tick in ticks],
        range=[-1.08 * place(most), 1.08 * place(most)],
    )
    order = {"categoryorder": "array", "categoryarray": list(effects)[::-1]}
    figure.update_yaxes(automargin=True, ticksuffix=" ", **order)
    figure.update_layout(legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"})
    return captioned(figure, _caption(effects))


def _points(said: str, effects: Mapping[str, Effect], colour: str, mark: str) -> go.Scatter:
    middle = [place(e.effect / e.smallest) for e in effects.values()]
    high, low = (
        [place(getattr(e, end) / e.smallest) for e in effects.values()] for end in ("high", "low")
    )
    texts = [
        f"{e.effect:+.3g} {e.unit}, interval {e.low:+.3g} to {e.high:+.3g}; smallest {e.smallest:g}"
        for e in effects.values()
    ]
    return go.Scatter(
        x=middle, y=list(effects), mode="markers", name=said, text=texts,
        marker={"color": colour, "symbol": mark, "size": 10},
        error_x={
            "type": "data", "symmetric": False, "color": colour, "thickness": 2,
            "array": _apart(high, middle), "arrayminus": _apart(middle, low),
        },
        hovertemplate="%{y}: %{text}<extra></extra>",
    )  # fmt: skip


def _apart(upper: Sequence[float], lower: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(upper, lower, strict=True)]


def _caption(effects: Mapping[str, Effect]) -> str:
    counts = {said: [n for n, e in effects.items() if e.verdict == said] for said in VERDICTS}
    said = "; ".join(
        f"{len(names)} {word}"
        + (f" ({', '.join(names)})" if word == "contradicted" and names else "")
        for word, names in counts.items()
    )
    largest = max(effects, key=lambda name: abs(effects[name].effect / effects[name].smallest))
    times = floor(abs(effects[largest].effect / effects[largest].smallest))
    return (
        f"{len(effects)} claims: {said}. Grey band: effects too small to be of interest. A claim "
        f"is supported where its whole bar is right of the band. Largest: {largest}, over {times} "
        "times its smallest effect of interest."
    )
