"""What ranks hold at their peak, by kind, against the memory of a device."""

from collections.abc import Mapping
from textwrap import shorten

import plotly.graph_objects as go
from matplotlib.figure import Figure

from workbench.figures.marks import Picture, Text, printed, rectangle, svg
from workbench.figures.memory import KIND_COLOURS
from workbench.figures.style import INK, PAPER, captioned, colour_of, log_ticks, styled
from workbench.footprint import KINDS, Memory
from workbench.units import human_bytes

#: Colour of each kind; those that `workbench.memory` tells apart, too, have theirs.
#: Source: Paul Tol's light qualitative scheme, safe for the colour-blind, made for black labels.
FOOTPRINT_COLOURS: dict[str, str] = {
    kind: {"optimizer": "#EE8866", "buffers": "#44BB99"}.get(kind) or KIND_COLOURS[kind]
    for kind in KINDS
}
_OVER = "#A00000"
#: Pixels: where bars begin, the longest of them, a row, and where the columns are.
_LEFT, _LONGEST, _ROW = 190, 400, 26
_COLUMNS = {"peak": 650, "left over": 740, "moment": 825}
#: Characters of a reason in one line.
_LINE = 105


def fit_chart(rows: Mapping[str, Memory | str], budget_bytes: int) -> Figure:
    """One stacked bar a row, and a line at the budget.

    Parameters
    ----------
    rows : mapping
        Name -> what `closed_form_memory` found, or the reason why it can't be run.
    budget_bytes : int
        Memory of a device [bytes].
    """
    return captioned(printed(_chart(rows, budget_bytes)), fit_caption(rows, budget_bytes))


def fit_svg(rows: Mapping[str, Memory | str], budget_bytes: int) -> str:
    """The chart as SVG, for an explorer."""
    return svg(_chart(rows, budget_bytes), fit_caption(rows, budget_bytes))


def _chart(rows: Mapping[str, Memory | str], budget: int) -> Picture:
    page = Picture(880, 66 + _ROW * len(rows))
    x = float(_LEFT)
    for kind, colour in FOOTPRINT_COLOURS.items():
        page.marks.append(rectangle(x, 8, x + 12, 20, colour))
        page.marks.append(Text(x + 17, 14, kind, 11, "start"))
        x += 35 + 7 * len(kind)
    for head, place in _COLUMNS.items():
        page.marks.append(Text(place, 38, head, 11, bold=True))
    peaks = [row.peak_bytes for row in rows.values() if not isinstance(row, str)]
    scale = _LONGEST / max(budget, *peaks, 1)
    at = _LEFT + budget * scale
    tip = f"the device: {budget:,} B"
    page.marks.append(rectangle(at - 1, 46, at + 1, page.height - 12, _OVER, edge=_OVER, tip=tip))
    page.marks.append(Text(at, 38, human_bytes(budget), 11, colour=_OVER))
    for i, (name, row) in enumerate(rows.items()):
        page.marks += _row(name, row, 52 + _ROW * i, scale, budget)
    return page


def _row(name: str, row: Memory | str, y: float, scale: float, budget: int) -> list:
    marks, x = [Text(_LEFT - 8, y + 10, name, 11, "end")], float(_LEFT)
    if isinstance(row, str):
        whole = rectangle(_LEFT, y, _LEFT + _LONGEST, y + 19, PAPER, tip=row)
        reason = shorten(row, _LINE, placeholder=" …")
        return [*marks, whole, Text(_LEFT, y + 10, reason, 10, "start", colour=_OVER)]
    for kind, size in row.kinds.items():
        if size:
            tip = f"{name}, {kind}: {size:,} B"
            marks.append(
                rectangle(x, y, x + size * scale, y + 19, FOOTPRINT_COLOURS[kind], tip=tip)
            )
        x += size * scale
    spare = budget - row.peak_bytes
    left = human_bytes(spare) if spare >= 0 else f"{human_bytes(-spare)} short"
    shown = human_bytes(row.peak_bytes), left, row.moment
    colours = INK, _OVER if spare < 0 else INK, INK
    return marks + [
        Text(place, y + 10, words, 11, colour=colour)
        for place, words, colour in zip(_COLUMNS.values(), shown, colours, strict=True)
    ]


def fit_caption(rows: Mapping[str, Memory | str], budget_bytes: int) -> str:
    """How many fit, who holds least and most, and what most of the least is."""
    runs = {name: row for name, row in rows.items() if not isinstance(row, str)}
    if not runs:
        return "None of them can run this."
    by_peak = sorted(runs, key=lambda name: runs[name].peak_bytes)
    few, many = runs[by_peak[0]], runs[by_peak[-1]]
    fitting = sum(row.peak_bytes <= budget_bytes for row in runs.values())
    text = f"{fitting} of {len(rows)} fit into {human_bytes(budget_bytes)}."
    if len(runs) < len(rows):
        text += f" {len(rows) - len(runs)} can't run."
    most = max(few.kinds, key=few.kinds.get)
    text += (
        f" '{by_peak[0]}' holds least, {human_bytes(few.peak_bytes)} at its peak "
        f"({few.moment}): {few.kinds[most] / few.peak_bytes:.0%} of it {most}."
    )
    if len(runs) > 1:
        text += f" '{by_peak[-1]}' holds most, {human_bytes(many.peak_bytes)}."
    return text + " By closed form, to the byte of live tensors."


def peak_curves(series: Mapping[str, Mapping[int, Memory]], budget_bytes: int, x: str) -> go.Figure:
    """Draw how a rank's peak grows with a size, and where each line leaves the budget.

    Parameters
    ----------
    series : mapping
        Name, which begins with a strategy's -> size -> what `closed_form_memory` found.
    budget_bytes : int
        Memory of a device [bytes].
    x : str
        What the sizes are.
    """
    figure, ends = go.Figure(), []
    for name, at in series.items():
        words = name.split(",")
        figure.add_trace(go.Scatter(
            x=list(at), y=[row.peak_bytes / 1e9 for row in at.values()], name=name,
            mode="lines+markers",
            line={"color": colour_of(words[0]), "dash": "dash" if len(words) > 1 else "solid"},
        ))  # fmt: skip
        fit = [size for size, row in at.items() if row.peak_bytes <= budget_bytes]
        ends.append(f"{name} {max(fit):,}" if fit else f"{name} none")
    sizes = sorted({size for at in series.values() for size in at})
    figure.add_trace(go.Scatter(
        x=[sizes[0], sizes[-1]], y=[budget_bytes / 1e9] * 2, mode="lines", hoverinfo="skip",
        name="a device's memory", line={"color": _OVER, "dash": "dot"},
    ))  # fmt: skip
    styled(figure, "A rank's peak (by closed form)", height=420)
    peaks = [row.peak_bytes / 1e9 for at in series.values() for row in at.values()]
    figure.update_xaxes(title=x, type="log", **log_ticks(sizes))
    figure.update_yaxes(title="memory of a rank [GB]", type="log", **log_ticks(peaks))
    return captioned(
        figure,
        f"Most {x} of those drawn that fit into {human_bytes(budget_bytes)}: {'; '.join(ends)}.",
    )
