"""What a rank holds at its peak, as stacked bars, beside what the step sends and computes."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from workbench.figures.marks import Picture, Text, printed, rectangle, svg
from workbench.figures.style import captioned
from workbench.memory import KINDS, AtPeak
from workbench.units import human_bytes

#: Source: Paul Tol's light qualitative scheme, safe for the colour-blind, made for black labels.
KIND_COLOURS: dict[str, str] = dict(
    zip(KINDS, ("#77AADD", "#EEDD88", "#FFAABB", "#BBCC33"), strict=True)
)
#: Pixels: where bars begin, the longest of them, a row, and where the columns are.
_LEFT, _LONGEST, _ROW = 250, 300, 26
_COLUMNS = {"peak": 630, "sent": 730, "flops": 830}


def memory_chart(rows: Mapping[str, AtPeak]) -> Figure:
    """One stacked bar a row: weights, gradients, bucket and activations at the peak.

    Parameters
    ----------
    rows : mapping
        Name -> what `at_peak` found.
    """
    return captioned(printed(_chart(rows)), memory_caption(rows))


def memory_svg(rows: Mapping[str, AtPeak]) -> str:
    """The chart as SVG, for an explorer."""
    return svg(_chart(rows), memory_caption(rows))


def _chart(rows: Mapping[str, AtPeak]) -> Picture:
    page = Picture(880, 62 + _ROW * len(rows))
    x = float(_LEFT)
    for kind, colour in KIND_COLOURS.items():
        page.marks.append(rectangle(x, 8, x + 12, 20, colour))
        page.marks.append(Text(x + 17, 14, kind, 11, "start"))
        x += 35 + 7 * len(kind)
    for head, place in _COLUMNS.items():
        page.marks.append(Text(place, 38, head, 11, bold=True))
    most = max((row.step.peak_bytes for row in rows.values()), default=0) or 1
    for i, (name, row) in enumerate(rows.items()):
        page.marks += _row(name, row, 52 + _ROW * i, _LONGEST / most)
    return page


def _row(name: str, row: AtPeak, y: float, scale: float) -> list:
    marks, x = [Text(_LEFT - 8, y + 10, name, 11, "end")], float(_LEFT)
    for kind, size in row.held.items():
        if size:
            tip = f"{name}, {kind}: {size:,} B"
            marks.append(rectangle(x, y, x + size * scale, y + 19, KIND_COLOURS[kind], tip=tip))
        x += size * scale
    step = row.step
    shown = (human_bytes(step.peak_bytes), human_bytes(step.sent_bytes), f"{step.flops:.3g}")
    for place, words in zip(_COLUMNS.values(), shown, strict=True):
        marks.append(Text(place, y + 10, words, 11))
    return marks


def memory_caption(rows: Mapping[str, AtPeak]) -> str:
    """Who holds most and least, and how much of it are activations, weights and gradients."""
    if not rows:
        return "No step was faked."
    by_peak = sorted(rows, key=lambda name: rows[name].step.peak_bytes)
    text = [_share(by_peak[-1], rows[by_peak[-1]], "Most:")]
    if len(rows) > 1:
        low, high = (rows[name].step for name in (by_peak[0], by_peak[-1]))
        text.append(_share(by_peak[0], rows[by_peak[0]], "Least:"))
        text.append(f"That is {low.peak_bytes / high.peak_bytes:.2g} of the most.")
        if high.flops and high.flops != low.flops:
            text.append(f"It computes {low.flops / high.flops:.3g} times the flops.")
    text.append("Sent: forward and backward. The optimizer's state is left out.")
    return " ".join(text)


def _share(name: str, row: AtPeak, words: str) -> str:
    parts = {kind: size / row.step.peak_bytes for kind, size in row.held.items() if size}
    return (
        f"{words} '{name}' with {human_bytes(row.step.peak_bytes)} at a rank's peak: "
        + ", ".join(f"{kind} {part:.1%}" for kind, part in parts.items())
        + "."
    )
