"""Rules that join updates so that a few dishonest clients can't decide: float64, on changes.

Each takes one row a client and returns one row. They see what clients *changed*, never whole
weights: of whole weights in float32 the distances of a fine-tuning run are rounding errors.
All clients count the same: the number of rows is a client's own word.
"""

from collections.abc import Sequence
from math import ceil

import numpy as np
from jaxtyping import Float, Int

Updates = Float[np.ndarray, "clients numbers"]
Update = Float[np.ndarray, " numbers"]
Deltas = dict[str, np.ndarray]


def stack(deltas: Sequence[Deltas]) -> Updates:
    """The clients' changes as rows of one float64 array, names in the order of the first.

    Raises
    ------
    ValueError
        If there are none, they differ in names or shapes, or a number is not finite: one NaN
        would make the median of its coordinate NaN.

    Examples
    --------
    >>> stack([{"a": np.ones(2), "b": np.zeros((1, 1))}, {"a": np.zeros(2), "b": np.ones((1, 1))}])
    array([[1., 1., 0.],
           [0., 0., 1.]])
    """
    if not deltas:
        raise ValueError("0 updates to join; a round needs at least 1.")
    shapes = [{name: array.shape for name, array in delta.items()} for delta in deltas]
    for client, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ValueError(
                f"update {client} has arrays {shape}, the first has {shapes[0]}: all must have the "
                "same names and shapes. Refuse it before joining."
            )
    rows = [np.concatenate([np.ravel(delta[name]) for name in shapes[0]]) for delta in deltas]
    stacked = np.stack(rows).astype(np.float64)
    if len(odd := np.flatnonzero(~np.isfinite(stacked).all(1))):
        raise ValueError(
            f"updates {odd.tolist()} of {len(deltas)} hold numbers that are not finite, and one is "
            "enough to make a median NaN. Refuse them before joining."
        )
    return stacked


def unstack(update: Update, like: Deltas) -> Deltas:
    """One row as arrays with the names and shapes of ``like``."""
    arrays, first = {}, 0
    for name, array in like.items():
        arrays[name] = update[first : first + array.size].reshape(array.shape)
        first += array.size
    return arrays


def median(updates: Updates) -> Update:
    """The median of each coordinate; of an even number, the mean of the middle two.

    Right in each coordinate as long as fewer than half of the clients are dishonest.

    References
    ----------
    Yin et al., Byzantine-Robust Distributed Learning, 2018, https://arxiv.org/abs/1803.01498

    Examples
    --------
    >>> median(np.array([[0.0, 1.0], [1.0, 2.0], [1e9, -1e9]]))
    array([1., 1.])
    """
    return np.median(updates, axis=0)


def trimmed_mean(updates: Updates, trim: float) -> Update:
    """The mean of each coordinate without its ``int(trim n)`` largest and smallest values.

    Raises
    ------
    ValueError
        If nothing would be trimmed, or everything.

    References
    ----------
    Yin et al., Byzantine-Robust Distributed Learning, 2018, https://arxiv.org/abs/1803.01498

    Examples
    --------
    >>> trimmed_mean(np.array([[0.0], [1.0], [2.0], [1e9]]), trim=0.25)
    array([1.5])
    """
    count, cut = len(updates), trimmed(len(updates), trim)
    return np.sort(updates, axis=0)[cut : count - cut].mean(0)


def trimmed(count: int, trim: float) -> int:
    """How many of ``count`` values are cut off at each end.

    Raises
    ------
    ValueError
        If that is none, or all.
    """
    cut = int(trim * count)
    if cut == 0:
        enough = ceil(1000 / count) / 1000
        way = f"a trim of at least {enough:g}, or " if enough < 0.5 else "the median, or "
        raise ValueError(
            f"trim={trim} of {count} updates cuts off int({trim * count:g}) = 0 at each end, which "
            f"is the plain mean. Take {way}more clients a round."
        )
    if 2 * cut >= count:
        raise ValueError(
            f"trim={trim} of {count} updates cuts off {cut} at each end and leaves none: it must "
            "be below 0.5. Use the median, or a smaller trim."
        )
    return cut


def squared_distances(updates: Updates) -> Float[np.ndarray, "clients clients"]:
    """Squared distances of all pairs, from differences: nothing cancels as in x² + y² - 2xy."""
    return np.array([((updates - one) ** 2).sum(1) for one in updates])


def krum_scores(updates: Updates, f: int) -> Float[np.ndarray, " clients"]:
    """Each update's sum of squared distances to its ``n - f - 2`` nearest others.

    Raises
    ------
    ValueError
        If n < 2f + 3: dishonest clients could then outvote the honest neighbours.

    References
    ----------
    Blanchard et al., Machine Learning with Adversaries, 2017, https://arxiv.org/abs/1703.02757

    Examples
    --------
    >>> krum_scores(np.array([[0.0], [1.0], [2.0], [3.0], [100.0]]), f=1)
    array([5.0000e+00, 2.0000e+00, 2.0000e+00, 5.0000e+00, 1.9013e+04])
    """
    require(len(updates), f, "Krum", 2)
    return _scores(squared_distances(updates), len(updates) - f - 2)


def krum(updates: Updates, f: int) -> Update:
    """The update with the least score; of equal ones, the first client's.

    See `krum_scores`. It is one client's update: what the others learnt is lost.
    """
    return updates[np.argmin(krum_scores(updates, f))].copy()


def multi_krum(updates: Updates, f: int, keep: int) -> Update:
    """The mean of the ``keep`` updates with the least scores.

    Raises
    ------
    ValueError
        If n < 2f + 3, or ``keep`` is not in 1..n - f: one more, and a dishonest client is in it.
    """
    scores = krum_scores(updates, f)
    check_keep(len(updates), f, keep)
    return updates[np.argsort(scores, kind="stable")[:keep]].mean(0)


def check_keep(count: int, f: int, keep: int) -> None:
    """Refuse to keep more updates than are surely honest."""
    if not 1 <= keep <= count - f:
        raise ValueError(
            f"keep={keep} of {count} updates with f={f}: at most n - f = {count - f} can be "
            "honest. Lower keep or f, or take more clients a round."
        )


def bulyan(updates: Updates, f: int) -> Update:
    """Krum picks n - 2f updates; a coordinate is the mean of their n - 4f nearest to its median.

    Krum picks one after another and leaves out those picked. Towards the end fewer than 2f + 3
    are left; a score then counts the ``max(left - f - 2, 1)`` nearest.

    Raises
    ------
    ValueError
        If n < 4f + 3.

    References
    ----------
    El Mhamdi et al., The Hidden Vulnerability of Distributed Learning in Byzantium, 2018,
    https://arxiv.org/abs/1802.07927

    Examples
    --------
    >>> bulyan(np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [1e9], [2.5]]), f=1)
    array([1.83333333])
    """
    require(len(updates), f, "Bulyan", 4)
    chosen = np.sort(updates[picked_by_krum(updates, f)], axis=0)
    return nearest_to_median(chosen, len(updates) - 4 * f)


def picked_by_krum(updates: Updates, f: int) -> Int[np.ndarray, " picked"]:
    """The ``n - 2f`` clients that Krum picks one after another."""
    distances, left = squared_distances(updates), list(range(len(updates)))
    picked = []
    while len(picked) < len(updates) - 2 * f:
        scores = _scores(distances[np.ix_(left, left)], max(len(left) - f - 2, 1))
        picked.append(left.pop(int(np.argmin(scores))))
    return np.array(picked)


def nearest_to_median(updates: Updates, keep: int) -> Update:
    """The mean, coordinate by coordinate, of the ``keep`` values nearest to the median."""
    order = np.argsort(np.abs(updates - np.median(updates, axis=0)), axis=0, kind="stable")
    return np.take_along_axis(updates, order[:keep], axis=0).mean(0)


def require(count: int, f: int, rule: str, factor: int) -> None:
    """Refuse a round with fewer than ``factor * f + 3`` updates."""
    least = factor * f + 3
    if count < least:
        most = (count - 3) // factor
        out = f"Lower f to {most}, or take" if most >= 1 else "Take"
        raise ValueError(
            f"{rule} with f={f} of {count} updates: it needs n >= {factor}f + 3 = {least}. "
            f"{out} at least {least} clients a round."
        )


def _scores(distances: Float[np.ndarray, "n n"], neighbours: int) -> Float[np.ndarray, " n"]:
    """Sums of each row's least entries, its own zero (on the diagonal) left out."""
    others = distances + np.diag(np.full(len(distances), np.inf))
    return np.sort(others, axis=1)[:, :neighbours].sum(1)
