"""Published times and throughputs beside ours, with the ratio."""

from dataclasses import dataclass

from workbench.published.figure3 import BARS, fig3_throughput
from workbench.published.latency import LATENCIES, inference_latency

#: Units of which less, and more, is faster.
_TIMES = ("s", "s an iteration")
_SPEEDS = ("samples/s", "iterations/s", "TFLOP/s", "of the peak")


@dataclass(frozen=True)
class PublishedRow:
    """One published number and ours.

    Attributes
    ----------
    figure : str
        Where in the source it stands.
    case : str
        What was run.
    published, ours : float
        The number, in ``unit``.
    unit : str
        Of both.
    grade, source : str
        A key of `GRADES`, and where the published number is from.
    fitted : bool
        Whether constants of ours were fitted to it.
    left_out : str
        What of the published run our number lacks, as far as it is known.
    """

    figure: str
    case: str
    published: float
    ours: float
    unit: str
    grade: str
    source: str
    fitted: bool
    left_out: str = ""

    @property
    def ratio(self) -> float:
        """Ours over the published one."""
        return self.ours / self.published

    @property
    def speed_ratio(self) -> float | None:
        """How many times as fast as published: above 1 we are too fast; None if it is no speed."""
        if self.unit in _TIMES:
            return 1 / self.ratio
        return self.ratio if self.unit in _SPEEDS else None


def table() -> list[PublishedRow]:
    """All published times that we predict: the training figure's bars and inference latencies.

    Examples
    --------
    >>> rows = table()
    >>> len(rows), {row.unit for row in rows} == {"samples/s", "s"}
    (15, True)
    """
    rows = []
    for bar in BARS:
        case = f"T = {bar.temporal_length}, S = {bar.spatial_length}, {bar.sp} GPUs, {bar.method}"
        rows.append(PublishedRow(
            "Fig. 3", case, bar.samples_per_s, fig3_throughput(**bar.asked), "samples/s", "A-dig",
            "arXiv:2403.10266v1", fitted=True,
        ))  # fmt: skip
    for method, p, seconds in LATENCIES:
        case = f"80 frames of 512 x 512 on {p} H800" + (f", {method}" if p > 1 else "")
        rows.append(PublishedRow(
            "sampling time", case, seconds, inference_latency(p=p, method=method), "s", "A",
            "github.com/NUS-HPC-AI-Lab/VideoSys@01bca9c docs/dsp.md", fitted=False,
        ))  # fmt: skip
    return rows
