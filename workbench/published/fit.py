"""Fit the three constants of the training figure, and predict each bar from all the others."""

from collections.abc import Sequence
from dataclasses import astuple

import numpy as np

from workbench.published.figure3 import BARS, Bar, Fitted, errors, fitted_cluster

#: Where the search begins: nothing to do with the result. In flop/s, bytes/s and s.
START = Fitted(300e12, 100e9, 0.3)
#: A step of the numerical slopes, of a constant's logarithm.
_STEP = 1e-4


def fit(bars: Sequence[Bar] = BARS, *, steps: int = 8) -> Fitted:
    """Least squares of the logarithms of ours over published, by Gauss and Newton.

    Parameters
    ----------
    bars : sequence of Bar
        At least as many as there are constants.
    steps : int
        Of the search; after 8 the constants don't change in their first nine digits.

    Raises
    ------
    ValueError
        If there are fewer bars than constants.

    Examples
    --------
    >>> from workbench.published.figure3 import FITTED
    >>> round(fit().bandwidth_bytes_per_s / FITTED.bandwidth_bytes_per_s, 3)
    1.0
    """
    x = np.log(astuple(START))
    if len(bars) < len(x):
        raise ValueError(f"{len(x)} constants need at least as many bars, got {len(bars)}")
    for _ in range(steps):
        at = _residuals(x, bars)
        shifts = np.eye(len(x)) * _STEP
        slopes = np.stack([(_residuals(x + shift, bars) - at) / _STEP for shift in shifts], 1)
        x = x - np.linalg.lstsq(slopes, at, rcond=None)[0]
    return Fitted(*(float(value) for value in np.exp(x)))


def _residuals(x: np.ndarray, bars: Sequence[Bar]) -> np.ndarray:
    return np.log1p(errors(bars, fitted_cluster(Fitted(*np.exp(x)))))


def left_out(groups: Sequence[Sequence[Bar]] = tuple((bar,) for bar in BARS)) -> list[float]:
    """Error of each bar (ours over published, less 1) when its group had no part in the fit.

    Parameters
    ----------
    groups : sequence of sequences of Bar
        Each left out in its turn; by default each bar alone.

    Examples
    --------
    >>> by_ranks = [[bar for bar in BARS if bar.sp == sp] for sp in (2, 4, 8)]
    >>> len(left_out(by_ranks)), max(map(abs, left_out(by_ranks))) < 0.2
    (12, True)
    """
    found = []
    for group in groups:
        rest = fit([bar for bar in BARS if bar not in group])
        found += errors(group, fitted_cluster(rest))
    return found
