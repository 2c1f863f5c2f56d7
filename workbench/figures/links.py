"""Nodes and their links in numbers; measured collectives on their lines; steps on theirs."""

import statistics
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure

from workbench.calibration import Checked, Row, line, median_error
from workbench.calibration.grid import NOISY
from workbench.cluster import Cluster
from workbench.figures.marks import Arrow, Picture, Text, printed, rectangle
from workbench.figures.style import (
    INK,
    KINDS,
    PALE,
    byte_ticks,
    captioned,
    colour_of,
    log_ticks,
    styled,
)
from workbench.units import human_bytes, human_seconds

#: Most devices of a node that are drawn one by one.
_DRAWN = 8
#: How far from measured a prediction may be to lie within the band that is drawn.
_BAND = 0.15


def cluster_picture(cluster: Cluster) -> Figure:
    """One node of a cluster: its devices, what joins them, and what leads out of it, in numbers."""
    count = min(cluster.gpus_per_node, _DRAWN)
    page, each = Picture(860, 250), 660 / count
    page.marks.append(rectangle(20, 30, 700, 200, PALE))
    page.marks.append(Text(30, 18, f"a node: {cluster.gpus_per_node} devices", 12, "start", True))
    for i in range(count):
        left = 30 + each * i
        page.marks.append(rectangle(left + 4, 50, left + each - 4, 110, "#77AADD"))
        page.marks.append(Text(left + each / 2, 72, f"device {i}", 11, bold=True))
        held = human_bytes(cluster.device.memory_bytes)
        page.marks.append(Text(left + each / 2, 92, held, 10))
        page.marks.append(Arrow((left + each / 2, 112), (left + each / 2, 142)))
    page.marks.append(rectangle(34, 144, 686, 180, "#EEDD88"))
    link = cluster.intra
    words = f"{link.name}: {human_bytes(link.bandwidth('all_to_all'))}/s each way a device, "
    words += f"alpha {human_seconds(link.alpha('all_to_all'))}"
    page.marks.append(Text(360, 162, words, 11))
    if cluster.inter is None:
        page.marks.append(Text(710, 162, "no network", 11, "start"))
    else:
        page.marks.append(Arrow((702, 116), (752, 116)))
        page.marks.append(Text(710, 92, cluster.inter.name.split(",")[0], 11, "start"))
        share = f"{human_bytes(cluster.nic_bytes_per_s)}/s a device"
        page.marks.append(Text(710, 140, share, 11, "start"))
    rate = f"a device multiplies matrices at {cluster.device.matmul_rate / 1e12:.3g} TFLOP/s"
    page.marks.append(Text(30, 222, f"{cluster.name}; {rate}", 11, "start"))
    return captioned(printed(page), _cluster_words(cluster))


def _cluster_words(cluster: Cluster) -> str:
    inside = cluster.intra.bandwidth("all_to_all")
    text = (
        f"{cluster.name}: {cluster.gpus_per_node} devices of "
        f"{human_bytes(cluster.device.memory_bytes)}; in a node each sends "
        f"{human_bytes(inside)}/s to the others"
    )
    if cluster.inter is None:
        return f"{text}. Nothing leads out of it."
    ratio = inside / cluster.nic_bytes_per_s
    return f"{text}, out of it {human_bytes(cluster.nic_bytes_per_s)}/s: {ratio:.1f} times slower."


def link_lines(rows: Sequence[Row], kinds: Sequence[str] = tuple(KINDS)) -> go.Figure:
    """Measured seconds of collectives over the bytes sent, and the line through each kind.

    Parameters
    ----------
    rows : sequence of Row
        As `workbench.calibration.measure` returns them: ``.links``.
    kinds : sequence of str
        Those that are drawn.
    """
    figure, said = go.Figure(), []
    drawn = [row for row in rows if row.kind in kinds]
    for kind in dict.fromkeys(row.kind for row in drawn):
        same = [row for row in drawn if row.kind == kind]
        found = line([row.size for row in same], [row.seconds for row in same], mean=True)
        sizes = np.geomspace(same[0].size, same[-1].size, 60).tolist()  # a line bends on such axes
        figure.add_trace(_dots(kind, same))
        figure.add_trace(go.Scatter(
            x=sizes, y=[found.alpha_s + size * found.per_unit_s for size in sizes], mode="lines",
            line={"color": KINDS[kind]}, showlegend=False, hoverinfo="skip",
        ))  # fmt: skip
        rate = "no slope is seen, so the slowest rate that the times allow is taken"
        if found.per_unit_s:
            rate = f"{human_bytes(1 / found.per_unit_s)}/s"
        said.append(
            f"{kind}: alpha {human_seconds(found.alpha_s)} "
            f"(95 % interval {human_seconds(found.alpha_interval[0])} to "
            f"{human_seconds(found.alpha_interval[1])}), {rate}, "
            f"worst size {found.misfit:.0%} off"
        )
    styled(figure, "Collectives of this machine: dots measured, lines fitted", height=440)
    figure.update_xaxes(title="bytes a rank sends", type="log",
                        **byte_ticks(int(row.size) for row in drawn))  # fmt: skip
    seconds = [second for row in drawn for second in row.seconds]
    figure.update_yaxes(title="seconds", type="log", **log_ticks(seconds, human_seconds))
    return captioned(figure, f"Means, with the range of all repeats. {'; '.join(said)}.")


def _dots(kind: str, rows: Sequence[Row]) -> go.Scatter:
    """Means, and the range of all repeats."""
    means = [statistics.fmean(row.seconds) for row in rows]
    ranges = {
        "array": [max(r.seconds) - m for r, m in zip(rows, means, strict=True)],
        "arrayminus": [m - min(r.seconds) for r, m in zip(rows, means, strict=True)],
    }
    return go.Scatter(
        x=[row.size for row in rows], y=means, mode="markers", name=kind,
        marker={"color": KINDS[kind], "size": 8},
        error_y={"type": "data", "symmetric": False, **ranges},
    )  # fmt: skip


def checked_steps(rows: Sequence[Checked]) -> go.Figure:
    """Predicted seconds of steps over measured ones, and a band of 15 % around equal.

    Parameters
    ----------
    rows : sequence of Checked
        As `workbench.calibration.check` returns them. Those that are too noisy are hollow.
    """
    figure = go.Figure()
    ends = [min(min(r.median_s, r.predicted.seconds) for r in rows) / 1.3,
            max(max(r.median_s, r.predicted.seconds) for r in rows) * 1.3]  # fmt: skip
    band = [(x, x * f) for f, xs in ((1 - _BAND, ends), (1 + _BAND, ends[::-1])) for x in xs]
    figure.add_trace(go.Scatter(
        x=[x for x, _ in band], y=[y for _, y in band], fill="toself", mode="none",
        fillcolor="rgba(0,0,0,0.08)", name=f"within {_BAND:.0%}", hoverinfo="skip",
    ))  # fmt: skip
    for name in dict.fromkeys(row.point.strategy for row in rows):
        same = [row for row in rows if row.point.strategy == name]
        symbols = ["circle" if row.counts else "circle-open" for row in same]
        figure.add_trace(go.Scatter(
            x=[row.median_s for row in same], y=[row.predicted.seconds for row in same],
            mode="markers", name=name, text=[_point_words(row) for row in same],
            marker={"color": colour_of(name), "size": 9, "symbol": symbols},
            hovertemplate="%{text}: measured %{x:.3g} s, predicted %{y:.3g} s<extra></extra>",
        ))  # fmt: skip
    figure.add_trace(go.Scatter(x=ends, y=ends, mode="lines", showlegend=False, hoverinfo="skip",
                                line={"color": INK, "width": 1}))  # fmt: skip
    styled(figure, "Steps of this machine: predicted, then measured", height=440)
    ticks = log_ticks(ends, human_seconds)
    figure.update_xaxes(title="measured seconds", type="log", **ticks)
    figure.update_yaxes(title="predicted seconds", type="log", **ticks)
    return captioned(figure, _checked_words(rows))


def _point_words(row: Checked) -> str:
    sizes = " x ".join(map(str, row.point.spec.dims.values()))
    return f"{row.point.strategy}, p={row.point.p}, {sizes}"


def _checked_words(rows: Sequence[Checked]) -> str:
    counting = [row for row in rows if row.counts]
    noisy = len(rows) - len(counting)
    text = f"{len(rows)} steps, each predicted before it ran. "
    if 3 * len(counting) < len(rows):
        text += "Too noisy here to say how far off. "
    elif counting:
        worst = max(counting, key=lambda row: abs(row.error))
        text += (
            f"Of those that count: median error {median_error(rows):.0%}; worst {worst.error:+.0%} "
            f"({_point_words(worst)}). "
        )
    if noisy:
        text += f"{noisy} hollow: their repeats differ by more than {NOISY:.0%}, and don't count."
    return text.strip()
