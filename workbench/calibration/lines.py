"""A straight line through measured times: what a thing costs whatever its size, and by size."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

#: Resamples of a bootstrap, and the part of them that an interval holds.
RESAMPLES, LEVEL = 400, 0.95


class Line(NamedTuple):
    """``seconds = alpha_s + size * per_unit_s``, each with its interval.

    ``misfit`` is the largest |line / time - 1| over the sizes: how far it is from straight.
    ``most_per_unit_s`` is what the largest size took, all of it, by size.
    """

    alpha_s: float
    per_unit_s: float
    alpha_interval: tuple[float, float]
    per_unit_interval: tuple[float, float]
    misfit: float
    most_per_unit_s: float


def line(
    sizes: Sequence[float], seconds: Sequence[Sequence[float]], *, seed: int = 0,
    through_zero: bool = False, mean: bool = False,
) -> Line:  # fmt: skip
    """Fit a line to repeated measurements at each of several sizes.

    Least squares of relative errors to the medians of each size, or to the means, with no negative
    coefficient; intervals by the bootstrap: repeats are drawn again with replacement, size by size,
    and fitted anew. They hold the noise of the repeats, not what a straight line misses: that is
    ``misfit``.

    Parameters
    ----------
    sizes : sequence of float
        In whatever unit; two different ones at least.
    seconds : sequence of sequences of float
        Repeats of each size [s], as many of each.
    seed : int
        Of the resampling.
    through_zero : bool
        Nothing is taken whatever its size: ``alpha_s`` is 0.
    mean : bool
        Of a size's repeats take the mean: what counts where many are added up, some of them late.

    Raises
    ------
    ValueError
        If there are fewer than two sizes, not as many repeats of each, or a time is not positive.

    References
    ----------
    Efron & Tibshirani (1993), An Introduction to the Bootstrap: percentile intervals.

    Examples
    --------
    >>> found = line([1e3, 1e6], [[2e-5 + 1e3 / 1e9] * 3, [2e-5 + 1e6 / 1e9] * 3])
    >>> round(found.alpha_s * 1e6, 6), round(1e-9 / found.per_unit_s, 6), found.misfit < 1e-9
    (20.0, 1.0, True)
    """
    times = np.asarray(seconds, dtype=float) if len({len(row) for row in seconds}) == 1 else None
    if times is None or len(times) != len(sizes) or len(set(sizes)) < 2:
        raise ValueError(
            f"a line needs two different sizes or more, and as many repeats of each; got sizes "
            f"{list(sizes)} and {[len(row) for row in seconds]} repeats"
        )
    if not (times > 0).all():
        raise ValueError(f"measured times must be positive, got {times.min()} s")
    x = np.asarray(sizes, dtype=float)
    middle = np.mean if mean else np.median
    middles = middle(times, axis=1)
    alpha, slope = (float(found[0]) for found in _fitted(x, middles[None], through_zero))
    rng = np.random.default_rng(seed)
    drawn = rng.integers(times.shape[1], size=(RESAMPLES, *times.shape))
    again = middle(np.take_along_axis(times[None], drawn, axis=2), axis=2)
    alphas, slopes = (_interval(found) for found in _fitted(x, again, through_zero))
    misfit = float(np.max(np.abs((alpha + slope * x) / middles - 1)))
    most = float(middles[x.argmax()] / x.max())
    return Line(alpha, slope, alphas, slopes, misfit, most)


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _fitted(x: np.ndarray, times: np.ndarray, through_zero: bool) -> tuple[np.ndarray, np.ndarray]:
    """Intercepts and slopes of many sets of times ``[sets, sizes]``; neither is negative."""
    weights = times**-2
    one, by, square, t, xt = (
        (weights * values).sum(1) for values in (1 + 0 * x, x, x * x, times, x * times)
    )
    slope = (one * xt - by * t) / (one * square - by**2)
    alpha = (t - slope * by) / one
    flat, through = (slope < 0) & (not through_zero), (alpha < 0) | through_zero
    alpha = np.where(flat, t / one, np.where(through, 0.0, alpha))
    return alpha, np.where(flat, 0.0, np.where(through, xt / square, slope))
