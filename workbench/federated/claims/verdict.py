"""From effects, one a seed, to an interval and a verdict; and Holm's correction for many claims."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan, sqrt

import numpy as np
from scipy import stats

#: Of the intervals.
LEVEL = 0.95
#: What a verdict can be.
SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "not at this scale"


@dataclass(frozen=True)
class Interval:
    """The mean of paired effects, its t-interval, and how surely it is beyond the smallest effect.

    ``p`` is two-sided: below ``1 - LEVEL`` exactly where the interval is beyond ``smallest``, on
    one side or on the other.
    """

    mean: float
    low: float
    high: float
    p: float
    seeds: int


def paired_interval(effects: Sequence[float], smallest: float = 0.0) -> Interval:
    """Student's t-interval of the mean of ``effects``, one for each seed.

    ``mean +- t s / sqrt(n)`` with t of n - 1 degrees of freedom. The test asks whether the mean's
    size is above ``smallest``: ``p = 2 P(T > (|mean| - smallest) / (s / sqrt(n)))``, at most 1.
    With no spread at all, as for counted bytes, the interval is the mean itself.

    Raises
    ------
    ValueError
        If there are fewer than 2 effects, or one is not finite.

    References
    ----------
    Student, The Probable Error of a Mean, 1908.

    Examples
    --------
    >>> found = paired_interval([0.1, 0.2, 0.3], smallest=0.05)
    >>> round(found.mean, 3), round(found.low, 3), round(found.high, 3), round(found.p, 3)
    (0.2, -0.048, 0.448, 0.122)
    """
    values = np.asarray(effects, np.float64)
    if len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(
            f"effects={list(effects)}: an interval needs at least 2 finite ones. Run more seeds."
        )
    mean, error = float(values.mean()), float(values.std(ddof=1)) / sqrt(len(values))
    beyond = abs(mean) - smallest
    if error <= 1e-12 * abs(mean):
        return Interval(mean, mean, mean, 0.0 if beyond > 0 else 1.0, len(values))
    freedom = len(values) - 1
    reach = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    p = min(1.0, 2 * float(stats.t.sf(beyond / error, freedom)))
    return Interval(mean, mean - reach, mean + reach, p, len(values))


def verdict(low: float, high: float, smallest: float) -> str:
    """What an interval of the effect says; above 0 is what the claim says.

    Examples
    --------
    >>> [verdict(*ends, smallest=0.1) for ends in ((0.2, 0.3), (-0.3, -0.2), (0.05, 0.3))]
    ['supported', 'contradicted', 'not at this scale']
    """
    if low > smallest:
        return SUPPORTED
    return CONTRADICTED if high < -smallest else UNDECIDED


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given; NaN is left out of the count and stays NaN.

    The i-th smallest of m is multiplied by ``m - i + 1``; none is less than one before it, none is
    above 1. Those below 0.05 are wrong, all together, in at most 5 % of such families.

    References
    ----------
    Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if isfinite(p))
    adjusted, largest = [nan] * len(p_values), 0.0
    for place, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - place) * p))
        adjusted[i] = largest
    return adjusted
