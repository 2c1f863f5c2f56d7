"""Predictions for this machine, made before the steps are run, and then the steps."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from workbench.cluster import Cluster
from workbench.comm import Comm
from workbench.cost import Cost, predict
from workbench.launch import local_device, run_local
from workbench.rank import RankStep, timed_run
from workbench.strategies import choose_shard, select
from workbench.transformer import TransformerSpec

#: A point whose repeats differ more than this from their median tells nothing of a prediction.
NOISY = 0.1


class Point(NamedTuple):
    """A step that is to be predicted and run."""

    spec: TransformerSpec
    strategy: str
    p: int


@dataclass(frozen=True)
class Checked:
    """One step, predicted and then measured.

    Attributes
    ----------
    point : Point
        Which step.
    predicted : Cost
        What was said before it ran.
    seconds : tuple of float
        The slowest rank's, repeat by repeat [s].
    """

    point: Point
    predicted: Cost
    seconds: tuple[float, ...]

    @property
    def median_s(self) -> float:
        """The measured step [s]."""
        return statistics.median(self.seconds)

    @property
    def error(self) -> float:
        """Predicted over measured, less 1."""
        return self.predicted.seconds / self.median_s - 1

    @property
    def noise(self) -> float:
        """Median of |repeat / median - 1|."""
        return statistics.median(abs(s / self.median_s - 1) for s in self.seconds)

    @property
    def counts(self) -> bool:
        """Whether the machine was quiet enough for it."""
        return self.noise <= NOISY


def check(
    points: Sequence[Point],
    cluster: Cluster,
    *,
    dtype: str = "float32",
    repeats: int = 9,
    timeout_s: float = 600.0,
) -> list[Checked]:
    """Predict every point on the measured ``cluster``, and only then run them.

    Parameters
    ----------
    points : sequence of Point
        Their ``p`` at most the cluster's.
    cluster : Cluster
        As `calibrate` returns it.
    dtype : str
        Of the steps; that of the calibration.
    repeats : int
        Steps of each point, after one that warms up.

    Raises
    ------
    ValueError
        If a strategy can't run a point; before anything runs.
    """
    said = [
        predict(q.spec, q.strategy, cluster, p=q.p, dtype=dtype, gradient_sync="flat")
        for q in points
    ]
    took: dict[int, tuple[float, ...]] = {}
    for p in sorted({q.p for q in points}):
        these = [i for i, q in enumerate(points) if q.p == p]
        run = partial(_seconds, points=[points[i] for i in these], dtype=dtype, repeats=repeats)
        ranks = run_local(run, p, timeout_s=timeout_s)
        for i, times in zip(these, zip(*ranks, strict=True), strict=True):
            took[i] = tuple(map(max, zip(*times, strict=True)))
    return [Checked(q, said[i], took[i]) for i, q in enumerate(points)]


def _seconds(
    rank: int, comm: Comm, points: Sequence[Point], dtype: str, repeats: int
) -> list[list[float]]:
    """Seconds of each repeat of each point, on one rank.

    All points are run in turn, round after round: a slow spell of the machine is no single point's.
    """
    steps = []
    for q in points:
        cls = select(q.strategy, q.spec, q.p)
        shard = choose_shard(cls, q.spec, q.p, q.spec.branches, None)
        steps.append(RankStep(comm, q.spec, cls, dtype, 0, shard, local_device()))
    found: list[list[float]] = [[] for _ in points]
    for _ in range(repeats + 1):  # the first round warms up
        for times, step in zip(found, steps, strict=True):
            step.reset()
            times.append(timed_run(step)[0])
            step.reset()
    return [times[1:] for times in found]


def median_error(rows: Sequence[Checked]) -> float:
    """Median of |error| of the points that count; NaN if none does."""
    return statistics.median([abs(row.error) for row in rows if row.counts] or [float("nan")])
