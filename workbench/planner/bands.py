"""How far off a predicted time may be: from errors that were found, and from nothing else."""

from collections.abc import Sequence
from functools import lru_cache
from math import inf
from typing import NamedTuple

from workbench.published import peers, table


class Band(NamedTuple):
    """A time is expected between ``low`` and ``high`` times what is predicted.

    ``level`` is how often, if predictions are off as those were that the band is from; they were
    made for up to ``checked_to`` ranks. ``source`` says where the errors are from.
    """

    low: float
    high: float
    level: float
    checked_to: int
    source: str


def band_of(errors: Sequence[float], *, checked_to: int, source: str) -> Band:
    """From the smallest to the largest of the errors that were found.

    Of n + 1 numbers in random order the last one lies outside all others with probability
    2 / (n + 1), whatever their distribution: so the next error lies between the smallest and the
    largest of n with probability (n - 1) / (n + 1). Left out: that the next one may be of another
    kind, such as across nodes where all of these were inside one.

    Parameters
    ----------
    errors : sequence of float
        Ours over true, less 1, of throughputs; or true over ours, less 1, of seconds.
    checked_to : int
        Most ranks among them.
    source : str
        Where they are from.

    Raises
    ------
    ValueError
        If there are fewer than two errors, or one is -1 or less.

    References
    ----------
    Wilks (1941), Determination of sample sizes for setting tolerance limits, Annals of
    Mathematical Statistics 12(1):91-96: intervals between order statistics.

    Examples
    --------
    >>> band_of([-0.1, 0.0, 0.2], checked_to=8, source="three steps")[:3]
    (0.9, 1.2, 0.5)
    """
    if len(errors) < 2 or not all(-1 < error < inf for error in errors):
        raise ValueError(
            f"a band needs two errors or more, each above -1 (a throughput that is not negative); "
            f"got {list(errors)}"
        )
    found = len(errors)
    level = (found - 1) / (found + 1)
    return Band(1 + min(errors), 1 + max(errors), level, checked_to, source)


#: GPUs of the largest of those runs: Fig. 3 of DeepSpeed-Ulysses' blog.
_MOST_GPUS = 32


@lru_cache(maxsize=1)  # pure: it depends on published numbers only
def validated() -> Band:
    """The band of the published times and speeds that nothing was fitted to.

    Two readings of one published number count as two. They are of several programs and machines,
    so another prediction is off like these only as far as it is of their kind.

    Examples
    --------
    >>> band = validated()
    >>> band.low < 1 < band.high, round(band.level, 2), band.checked_to
    (True, 0.93, 32)
    """
    rows = [row for row in (*table(), *peers()) if not row.fitted and row.speed_ratio is not None]
    errors = [row.speed_ratio - 1 for row in rows]
    found = len({(row.source, row.published) for row in rows})
    source = f"{len(errors)} comparisons with {found} published times and speeds, none fitted"
    return band_of(errors, checked_to=_MOST_GPUS, source=source)
