"""Published numbers beside ours: the paper's training figure, and how far off we are."""

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.figures.style import INK, captioned, colour_of, styled
from workbench.published import Bar, PublishedRow

_GREY = "#BBBBBB"


def published_bars(bars: Sequence[Bar], ours: Sequence[float], grade: str = "A-dig") -> go.Figure:
    """Draw each published bar in grey, and ours beside it with the ratio above.

    Parameters
    ----------
    bars : sequence of Bar
        Such as `workbench.published.BARS`.
    ours : sequence of float
        In the same order [samples/s].
    grade : str
        Of the published bars; a key of `workbench.published.GRADES`.
    """
    lengths = sorted({bar.temporal_length for bar in bars})
    titles = [f"T = {length}" for length in lengths]
    figure = make_subplots(1, len(lengths), shared_yaxes=True, subplot_titles=titles)
    pairs = list(zip(bars, ours, strict=True))
    for column, length in enumerate(lengths, 1):
        here = [(bar, our) for bar, our in pairs if bar.temporal_length == length]
        where = [[f"{bar.sp} GPUs" for bar, _ in here], [bar.method for bar, _ in here]]
        figure.add_trace(go.Bar(
            x=where, y=[bar.samples_per_s for bar, _ in here], name="published",
            marker_color=_GREY, showlegend=column == 1,
        ), 1, column)  # fmt: skip
        figure.add_trace(go.Bar(
            x=where, y=[our for _, our in here], name="ours, in its colour", showlegend=column == 1,
            marker_color=[colour_of(bar.method) for bar, _ in here],
            text=[f"{our / bar.samples_per_s:.2f}" for bar, our in here], textposition="outside",
        ), 1, column)  # fmt: skip
    styled(figure, f"Training throughput, published (grade {grade}) and ours", height=420,
           barmode="group", legend={"orientation": "h", "y": -0.3})  # fmt: skip
    figure.update_yaxes(title="samples/s", col=1)
    return captioned(figure, _bars_caption(pairs))


def _bars_caption(pairs: Sequence[tuple[Bar, float]]) -> str:
    off = {bar: our / bar.samples_per_s - 1 for bar, our in pairs}
    worst = max(off, key=lambda bar: abs(off[bar]))
    mean = sum(map(abs, off.values())) / len(off)
    return (
        f"Above each bar of ours: its ratio to the published one. On average we are {mean:.1%} "
        f"off, at worst {off[worst]:+.1%} (T = {worst.temporal_length}, {worst.sp} GPUs, "
        f"{worst.method})."
    )


def residuals(rows: Sequence[PublishedRow], left_out: Sequence[float] = ()) -> go.Figure:
    """Our speeds over the published ones, one row each, with its grade.

    Parameters
    ----------
    rows : sequence of PublishedRow
        As `workbench.published.table` has them.
    left_out : sequence of float
        Errors of the fitted rows, in their order, when each had no part in the fit.
    """
    names = [f"{row.figure}: {row.case} ({row.grade})" for row in rows]
    figure = go.Figure()
    for fitted, label, symbol in ((True, "used in the fit", "circle"),
                                  (False, "never used", "diamond")):  # fmt: skip
        these = [i for i, row in enumerate(rows) if row.fitted == fitted]
        figure.add_trace(go.Scatter(
            x=[rows[i].speed_ratio for i in these], y=[names[i] for i in these], mode="markers",
            name=label, marker={"symbol": symbol, "size": 11, "color": INK},
        ))  # fmt: skip
    if left_out:
        used = [name for name, row in zip(names, rows, strict=True) if row.fitted]
        ring = {"symbol": "circle-open", "size": 15, "color": "#D55E00", "line": {"width": 2}}
        figure.add_trace(go.Scatter(
            x=[1 + error for error in left_out], y=used, mode="markers",
            name="predicted from the others", marker=ring,
        ))  # fmt: skip
    figure.add_vline(x=1, line={"color": INK, "dash": "dot"})
    styled(figure, "Our speed over the published one", height=140 + 26 * len(rows),
           legend={"orientation": "h", "y": -0.18})  # fmt: skip
    figure.update_xaxes(title="ours / published; right of 1 we are too fast")
    figure.update_yaxes(autorange="reversed", automargin=True)
    return captioned(figure, _residuals_caption(rows, left_out))


def _residuals_caption(rows: Sequence[PublishedRow], left_out: Sequence[float]) -> str:
    said = []
    for fitted, words in ((True, "used in the fit"), (False, "never used")):
        off = [abs(row.speed_ratio - 1) for row in rows if row.fitted == fitted]
        if off:
            said.append(f"{len(off)} numbers {words}: off by {sum(off) / len(off):.1%} on average, "
                        f"{max(off):.1%} at worst")  # fmt: skip
    if left_out:
        off = [abs(error) for error in left_out]
        said.append(f"each predicted from the others: {sum(off) / len(off):.1%} and {max(off):.1%}")
    return "; ".join(said) + "."
