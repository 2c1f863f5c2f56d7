"""What averaging low-rank factors misses: lines of the error, singular values, bars to scale."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import plotly.graph_objects as go

from workbench.figures.marks import Picture, Text, rectangle, svg
from workbench.figures.style import INK, LINES, OTHER, PALE, captioned, styled

Lines = Mapping[str, Mapping[float, float]]
#: Pixels of the longest bar, and of one row.
_LONGEST, _ROW = 420, 30


def gap_lines(
    lines: Lines,
    x: str,
    points: Lines | None = None,
    title: str = "What averaging A and B misses",
    log: bool = False,
) -> go.Figure:
    """The error relative to the exact mean, a line for each name.

    Parameters
    ----------
    lines : mapping
        Name -> place on the x axis -> relative error (1 = as large as the exact mean itself).
    x : str
        Title of the x axis.
    points : mapping or None
        The same for marks beside the lines, such as single draws beside a closed form.
    log : bool
        Space the x axis by logarithm, with a tick at each place.
    """
    figure = go.Figure()
    colours = dict(zip(lines, cycle(LINES), strict=False))
    for name, values in lines.items():
        figure.add_trace(_line(name, values, colours[name], "lines" if points else "lines+markers"))
    for name, values in (points or {}).items():
        figure.add_trace(_line(name, values, colours.get(name, OTHER), "markers"))
    styled(figure, title, height=400)
    places = sorted({place for values in lines.values() for place in values})
    few = {"tickvals": places, "ticktext": [f"{place:g}" for place in places]}
    few = few if log or len(places) <= 10 else {}
    figure.update_xaxes(title=x, type="log" if log else "linear", **few)
    figure.update_yaxes(title="error: missed / exact mean", tickformat=".0%", rangemode="tozero")
    return captioned(figure, _lines_caption(lines, x, bool(points)))


def _line(name: str, values: Mapping[float, float], colour: str, mode: str) -> go.Scatter:
    return go.Scatter(
        x=list(values), y=list(values.values()), name=name, mode=mode,
        showlegend=mode != "markers", line={"color": colour, "width": 3},
        marker={"color": colour, "size": 8, "line": {"color": INK, "width": 0.5}},
        hovertemplate=f"{name}, %{{x}}: %{{y:.1%}}<extra></extra>",
    )  # fmt: skip


def _lines_caption(lines: Lines, x: str, points: bool) -> str:
    ends = []
    for name, values in lines.items():
        first, last = min(values), max(values)
        ends.append(f"{name} from {values[first]:.1%} to {values[last]:.1%}")
    least, most = min(min(v) for v in lines.values()), max(max(v) for v in lines.values())
    more = " Lines: closed form; points: single draws." if points else ""
    return f"{x} from {least:g} to {most:g}: {'; '.join(ends)} of the exact mean.{more}"


def spectrum(values: Sequence[float], rank: int) -> go.Figure:
    """Singular values of the exact mean; pale: what an adapter of rank ``rank`` can't hold."""
    values, numbers = list(values), list(range(1, len(values) + 1))
    figure = go.Figure()
    for name, colour, chosen in (
        (f"the largest {rank}", "#009E73", slice(None, rank)),
        ("the others", PALE, slice(rank, None)),
    ):
        bars = go.Bar(
            x=numbers[chosen], y=values[chosen], name=name,
            marker={"color": colour, "line": {"color": INK, "width": 0.5}},
            hovertemplate="number %{x}: %{y:.3g}<extra></extra>",
        )  # fmt: skip
        figure.add_trace(bars)
    styled(figure, "Singular values of the exact mean of B A", height=360)
    figure.update_xaxes(title="number, the largest first", dtick=max(1, len(values) // 16))
    figure.update_yaxes(title="singular value")
    whole, lost = sum(v**2 for v in values), sum(v**2 for v in values[rank:])
    text = (
        f"The exact mean has rank {sum(v > 1e-9 * values[0] for v in values)}. An adapter of rank "
        f"{rank} holds at best the largest {rank}: what is cut off is "
        f"{(lost / whole) ** 0.5:.0%} of the mean's size."
    )
    return captioned(figure, text)


def gap_caption(exact: float, apart: float, missed: float, what: str) -> str:
    """What the bars of `gap_svg` show, in words."""
    return (
        f"{what}: a typical number of the exact mean of B A is {exact:.3g}; averaging A and B "
        f"apart misses {missed:.3g}, {missed / exact if exact else 0:.0%} of it. "
        f"The product of the means has {apart:.3g}."
    )


def gap_svg(exact: float, apart: float, missed: float, what: str) -> str:
    """Three bars to scale: the exact mean, the product of the means, and what it misses."""
    rows = {
        "exact mean of B A": (exact, "#009E73"),
        "mean B x mean A": (apart, "#0072B2"),
        "missed": (missed, "#D55E00"),
    }
    page = Picture(780, 30 + _ROW * len(rows))
    page.marks.append(
        Text(160, 12, "a typical number of the matrix (root mean square)", 12, "start")
    )
    longest = max(max(size for size, _ in rows.values()), 1e-300)
    for i, (name, (size, colour)) in enumerate(rows.items()):
        y, end = 26 + _ROW * i, 160 + max(1.0, _LONGEST * size / longest)
        page.marks.append(Text(154, y + 11, name, 12, "end"))
        page.marks.append(rectangle(160, y, end, y + 22, colour, tip=f"{name}: {size:.4g}"))
        page.marks.append(Text(end + 6, y + 11, f"{size:.3g}", 12, "start"))
    return svg(page, gap_caption(exact, apart, missed, what))
