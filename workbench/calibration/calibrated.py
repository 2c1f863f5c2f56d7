"""The cluster that this machine's times make of it."""

import math
import statistics
from collections.abc import Iterable, Sequence

import numpy as np

from workbench.calibration.kernels import GPU_TILE, PRODUCTS
from workbench.calibration.lines import LEVEL, RESAMPLES, Line, line
from workbench.calibration.measured import Measured, Row, measure
from workbench.cluster import Cluster, Device, Figure, Link

#: Kinds of kernels, and what `Device` calls their rates.
_RATES = {
    "matmul": "matmul_flops_per_s", "attention": "attention_flops_per_s",
    "elementwise": "memory_bytes_per_s", "copy": "copy_bytes_per_s",
}  # fmt: skip

#: Those whose sizes are flops.
_FLOPS = ("matmul", "attention")

#: Kinds whose kernels are so long that their launches don't show.
_WHOLE = {"matmul", "elementwise"}


def calibrate(
    p: int | None = None, *, dtype: str = "float32", quick: bool = False, progress: bool = True
) -> Cluster:
    """Measure this machine and describe it as a cluster, for `predict` and all else that takes one.

    Times matrix products, attention, elementwise kernels, copies and launches, on one rank and on
    ``p`` at once, which on a CPU share its memory; and every kind of collective among the ``p``.
    A rate or a latency is a line through the medians of several sizes, of collectives through the
    means: a step adds up many, of which some are late. Its interval (95 %, by
    bootstrap) is the figure's ``interval``; the source says it, too, and how straight the line is.

    Parameters
    ----------
    p : int or None
        Ranks; ``None`` takes all GPUs, or as many as there are cores for this process.
    dtype : {"float32", "bfloat16", "float64"}
        What kernels compute in; predict with the same.
    quick : bool
        Fewer repeats, on a CPU of fewer sizes: seconds rather than half a minute, and no more than
        a rough idea.
    progress : bool
        Show a bar, where tqdm is installed.

    Returns
    -------
    Cluster
        One node of ``p`` devices, whose figures are of the kind ``"measured"``.

    Raises
    ------
    ValueError
        If ``p`` is no count, or more than there are GPUs where there is one; if there is no such
        dtype, or a GPU has no fused attention in it.

    Notes
    -----
    Whatever else runs on the machine is measured with it: predictions hold while that stays so.
    More ranks than cores take turns. A collective is timed after some milliseconds of computing
    since the one before it, so that its latency has the usual waiting for the last rank in it. Left
    out: other lengths of computing, after which ranks are more or less late. On a GPU kernels are
    timed while they stand in line: a step so small that its launches can't keep ahead takes longer.
    There it takes 6 GB in bfloat16, 12 in float32. Tiles of attention are counted as without a
    mask, and as if a zigzag's two runs were one.

    Examples
    --------
    >>> mine = calibrate(quick=True)  # doctest: +SKIP
    >>> predict(spec, "dsp", mine, p=2, dtype="float32").seconds  # doctest: +SKIP
    """
    return cluster_of(measure(p, dtype=dtype, quick=quick, progress=progress))


def cluster_of(found: Measured) -> Cluster:
    """Describe the measured machine as a cluster of one node.

    Examples
    --------
    >>> ten = tuple(Row(kind, n, (n / 1e9,) * 3) for kind in ("matmul", "attention",
    ...             "elementwise", "copy", "launch") for n in (1e6, 1e7))
    >>> found = cluster_of(Measured(1, "float32", "gloo", "a core", 10**9, ten, ten, ()))
    >>> round(found.device.matmul_rate / 1e9, 6), found.device.launch_s.kind
    (1.0, 'measured')
    """
    device = _device(found, found.together, f"{found.p} at once")
    fixed = _lines(found.together)["launch"]
    if found.waits:
        overhead = _middle([max(0.0, s) for s in found.waits], "a step, less its kernels in line")
    else:
        overhead = _figure(fixed.alpha_s, fixed.alpha_interval, fixed, "next to no layers")
    return Cluster(
        f"this machine, {found.p} x {found.device}", device, found.p, _link(found),
        step_overhead_s=overhead,
        overlap=_middle(found.overlaps, "a transfer beside products") if found.overlaps else 1.0,
        alone=_device(found, found.alone, "alone") if found.p > 1 else None,
        gradient_sync="flat",
    )  # fmt: skip


def _lines(rows: Iterable[Row], mean: bool = False) -> dict[str, Line]:
    """One line a kind."""
    by_kind: dict[str, list[Row]] = {}
    for row in rows:
        by_kind.setdefault(row.kind, []).append(row)
    return {
        kind: line([row.size for row in same], [row.seconds for row in same],
                   through_zero=kind in _WHOLE, mean=mean)
        for kind, same in by_kind.items()
    }  # fmt: skip


def _figure(value: float, interval: tuple[float, float], of: Line, what: str) -> Figure:
    source = (
        f"here: {what}; {LEVEL:.0%} in {interval[0]:.3g} to {interval[1]:.3g}; the worst size is "
        f"{of.misfit:.0%} off the line"
    )
    return Figure(value, "measured", source, interval)


def _rate(found: Line, what: str) -> Figure:
    """One over a slope; where none was seen, the slowest that the times allow."""
    high, low = (1 / s if s else math.inf for s in found.per_unit_interval)
    rate = 1 / found.per_unit_s if found.per_unit_s else min(low, 1 / found.most_per_unit_s)
    low = min(low, rate)
    return _figure(rate, (low, high), found, what)


def _device(found: Measured, rows: Iterable[Row], where: str) -> Device:
    rows = list(rows)
    lines = _lines(rows)
    rates = {kind: _rate(lines[kind], f"{found.dtype}, {where}") for kind in _RATES}
    launch, attention = lines["launch"], lines["attention"]
    forward = 2 / PRODUCTS  # of a query's time; backward is the rest
    best = max(row.size / statistics.median(row.seconds) for row in rows if row.kind in _FLOPS)
    best = max(best, *(rates[kind] for kind in _FLOPS))
    return Device(
        f"{found.device}, {where}", found.memory_bytes,
        Figure(best, "measured", f"the best of all kernels here: {found.dtype}, {where}"),
        launch_s=_figure(launch.per_unit_s, launch.per_unit_interval, launch, where),
        attention_row_s=_figure(
            forward * attention.alpha_s, tuple(forward * end for end in attention.alpha_interval),
            attention, f"a query, {where}",
        ),
        attention_tile=GPU_TILE if found.waits else None,
        **{name: rates[kind] for kind, name in _RATES.items()},
    )  # fmt: skip


def _middle(values: Sequence[float], what: str) -> Figure:
    """The median of repeats that belong to no line, and its interval."""
    drawn = np.random.default_rng(0).choice(np.asarray(values), (RESAMPLES, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    source = f"here: {what}; {LEVEL:.0%} in {low:.3g} to {high:.3g}"
    return Figure(statistics.median(values), "measured", source, (float(low), float(high)))


def _link(found: Measured) -> Link:
    lines = _lines(found.links, mean=True)
    if not lines:
        return Link("none", math.inf)
    what = f"{found.backend}, {found.p} ranks"
    rates = {kind: _rate(each, what) for kind, each in lines.items()}
    alphas = {
        kind: _figure(each.alpha_s, each.alpha_interval, each, what) for kind, each in lines.items()
    }
    slowest = min(rates, key=rates.get)
    by_kind = ({"*": of[slowest]} | of for of in (rates, alphas))
    return Link(what, *by_kind)
