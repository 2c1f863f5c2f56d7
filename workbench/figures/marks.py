"""The few marks that layout pictures are made of, and three ways to draw them.

A `Picture` is plain data in pixels, y downwards. `svg` makes a string of it (the fastest in a
live widget), `artists` a matplotlib figure, `traces` plotly traces.
"""

from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from typing import Literal

import plotly.graph_objects as go
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Polygon

from workbench.figures.style import INK, PAPER

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Area:
    """A polygon. Sent pieces are ``hatched``; ``tip`` is shown when the pointer is over it."""

    points: tuple[Point, ...]
    fill: str | None
    edge: str = INK
    width: float = 0.8
    hatched: bool = False
    dashed: bool = False
    tip: str = ""


@dataclass(frozen=True, slots=True)
class Arrow:
    """A line from ``start`` to ``end`` with one head or two."""

    start: Point
    end: Point
    heads: Literal[1, 2] = 2
    colour: str = INK


@dataclass(frozen=True, slots=True)
class Text:
    """Words, vertically centred on ``y``."""

    x: float
    y: float
    words: str
    size: float = 11
    anchor: Literal["start", "middle", "end"] = "middle"
    bold: bool = False
    colour: str = INK


@dataclass
class Picture:
    """Marks on a page of ``width`` x ``height`` pixels."""

    width: float
    height: float
    marks: list[Area | Arrow | Text] = field(default_factory=list)

    def add(self, other: "Picture", x: float = 0, y: float = 0) -> None:
        """Put ``other`` on this page with its corner at (x, y); the page grows as needed."""
        self.marks += [_shifted(mark, x, y) for mark in other.marks]
        self.width = max(self.width, x + other.width)
        self.height = max(self.height, y + other.height)


def _shifted(mark, x, y):
    # Written out: `dataclasses.replace` takes three times as long, and a page has many marks.
    match mark:
        case Area():
            points = tuple([(px + x, py + y) for px, py in mark.points])
            return Area(
                points, mark.fill, mark.edge, mark.width, mark.hatched, mark.dashed, mark.tip
            )
        case Arrow(start=(ax, ay), end=(bx, by)):
            return Arrow((ax + x, ay + y), (bx + x, by + y), mark.heads, mark.colour)
    m = mark
    return Text(m.x + x, m.y + y, m.words, m.size, m.anchor, m.bold, m.colour)


def rectangle(x0: float, y0: float, x1: float, y1: float, fill: str | None, **options) -> Area:
    """An upright rectangle."""
    return Area(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), fill, **options)


_SVG_HEAD = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w:.0f} {h:.0f}" role="img" '
    'aria-label="{label}" font-family="sans-serif" '
    'style="width:100%;max-width:{w:.0f}px;background:#fff">'
    '<defs><pattern id="sent" width="5" height="5" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect width="5" height="5" fill="#fff" fill-opacity=".65"/>'
    '<line x1="0" y1="0" x2="0" y2="5" stroke="#222" stroke-opacity=".45"/></pattern>'
    '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
    'orient="auto-start-reverse"><path d="M0 0L8 4L0 8z" fill="#222"/></marker></defs>'
    '<rect width="100%" height="100%" fill="#fff"/>'
)


def svg(picture: Picture, label: str = "") -> str:
    """The picture as one SVG element on opaque white, named ``label`` for screen readers."""
    head = _SVG_HEAD.format(w=picture.width, h=picture.height, label=escape(label, quote=True))
    return head + "".join(map(_svg_mark, picture.marks)) + "</svg>"


def _svg_mark(mark: Area | Arrow | Text) -> str:
    match mark:
        case Area():
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in mark.points)
            dash = ' stroke-dasharray="3 2"' if mark.dashed else ""
            drawn = (
                f'<polygon points="{points}" fill="{mark.fill or "none"}" stroke="{mark.edge}" '
                f'stroke-width="{mark.width}"{dash}>'
                + (f"<title>{escape(mark.tip)}</title>" if mark.tip else "")
                + "</polygon>"
            )
            over = f'<polygon points="{points}" fill="url(#sent)" pointer-events="none"/>'
            return drawn + (over if mark.hatched else "")
        case Arrow(start=(ax, ay), end=(bx, by)):
            back = ' marker-start="url(#tip)"' if mark.heads == 2 else ""
            return (
                f'<line x1="{ax:.1f}" y1="{ay:.1f}" x2="{bx:.1f}" y2="{by:.1f}" '
                f'stroke="{mark.colour}" stroke-width="1.8" marker-end="url(#tip)"{back}/>'
            )
    weight = ' font-weight="bold"' if mark.bold else ""
    return (
        f'<text x="{mark.x:.1f}" y="{mark.y:.1f}" font-size="{mark.size}" fill="{mark.colour}" '
        f'text-anchor="{mark.anchor}" dominant-baseline="central"{weight}>'
        f"{escape(mark.words)}</text>"
    )


def printed(picture: Picture, dpi: int = 100) -> Figure:
    """The picture as a matplotlib figure of the same size, without touching global state."""
    figure = Figure((picture.width / dpi, picture.height / dpi), dpi=dpi, facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, picture.width), ylim=(picture.height, 0))
    axes.axis("off")
    for mark in picture.marks:
        _print_mark(axes, mark, 72 / dpi)
    return figure


def _print_mark(axes, mark: Area | Arrow | Text, points_per_pixel: float) -> None:
    match mark:
        case Area():
            patch = Polygon(
                mark.points, facecolor=mark.fill or "none", edgecolor=mark.edge,
                linewidth=mark.width, linestyle=(0, (3, 2)) if mark.dashed else "-",
            )  # fmt: skip
            if mark.hatched:
                patch.set(alpha=0.5, hatch="////")
            axes.add_patch(patch)
        case Arrow():
            style = "<|-|>" if mark.heads == 2 else "-|>"
            axes.add_patch(
                FancyArrowPatch(
                    mark.start, mark.end, arrowstyle=style, mutation_scale=9, color=mark.colour,
                    linewidth=1.4, shrinkA=0, shrinkB=0,
                )
            )  # fmt: skip
        case Text():
            axes.text(
                mark.x, mark.y, mark.words, size=mark.size * points_per_pixel, color=mark.colour,
                ha={"start": "left", "middle": "center", "end": "right"}[mark.anchor],
                va="center", weight="bold" if mark.bold else "normal",
            )  # fmt: skip


def traces(picture: Picture, visible: bool = True) -> list[go.Scatter]:
    """The picture as plotly traces: neighbours that look alike share one."""
    areas = [mark for mark in picture.marks if isinstance(mark, Area)]
    arrows = [mark for mark in picture.marks if isinstance(mark, Arrow)]
    texts: dict[tuple, list[Text]] = {}
    for mark in picture.marks:
        if isinstance(mark, Text):
            texts.setdefault((mark.size, mark.anchor, mark.bold, mark.colour), []).append(mark)
    alike = groupby(areas, key=lambda a: (a.fill, a.edge, a.width, a.hatched, a.dashed))
    drawn = [_area_trace(list(same)) for _, same in alike]
    drawn += [_arrow_trace(arrows)] if arrows else []
    drawn += [*map(_text_trace, texts.values()), _tip_trace(picture)]
    for trace in drawn:
        trace.update(showlegend=False, visible=visible)
    return drawn


def _area_trace(same: list[Area]) -> go.Scatter:
    like, outline = same[0], []
    for area in same:
        outline += [*area.points, area.points[0], (None, None)]
    trace = go.Scatter(
        x=[x for x, _ in outline], y=[y for _, y in outline], mode="lines", hoverinfo="skip",
        line={"color": like.edge, "width": like.width, "dash": "dot" if like.dashed else "solid"},
    )  # fmt: skip
    if like.fill:
        trace.update(fill="toself", fillcolor=like.fill)
    if like.hatched:
        pattern = {"shape": "/", "size": 6, "bgcolor": like.fill, "fgcolor": "#FFFFFF"}
        trace.update(fillpattern=pattern, opacity=0.6)
    return trace


def _tip_trace(picture: Picture) -> go.Scatter:
    tips = [mark for mark in picture.marks if isinstance(mark, Area) and mark.tip]
    centres = [tuple(sum(c) / len(a.points) for c in zip(*a.points, strict=True)) for a in tips]
    return go.Scatter(
        x=[x for x, _ in centres], y=[y for _, y in centres], text=[area.tip for area in tips],
        mode="markers", marker={"opacity": 0, "size": 14}, hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


def _text_trace(same: list[Text]) -> go.Scatter:
    like = same[0]
    place = {"start": "middle right", "middle": "middle center", "end": "middle left"}
    return go.Scatter(
        x=[mark.x for mark in same], y=[mark.y for mark in same], mode="text", hoverinfo="skip",
        text=[f"<b>{m.words}</b>" if m.bold else m.words for m in same],
        textposition=place[like.anchor], textfont={"size": like.size, "color": like.colour},
    )  # fmt: skip


def _arrow_trace(arrows: list[Arrow]) -> go.Scatter:
    xs, ys, size = [], [], []
    for arrow in arrows:
        ends = [(arrow.start, arrow.end)] + [(arrow.end, arrow.start)] * (arrow.heads == 2)
        for start, end in ends:
            xs, ys = [*xs, start[0], end[0], None], [*ys, start[1], end[1], None]
            size += [0, 11, 0]
    return go.Scatter(
        x=xs, y=ys, mode="lines+markers", line={"color": INK, "width": 2}, hoverinfo="skip",
        marker={"symbol": "arrow", "angleref": "previous", "size": size, "color": INK},
    )  # fmt: skip
