"""How much privacy a run has spent, by dp-accounting; never by formulas of our own.

Renyi accountants with whole orders: an upper bound for both kinds of sampling, in fractions of a
second. Accountants of privacy loss distributions give somewhat less, but know no fixed samples.
"""

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from workbench.federated.options.privacy import CentralDP, LocalDP

#: Orders of the divergence that are tried; any set gives a valid bound.
ORDERS = (*range(2, 65), 80, 96, 128, 192, 256, 512, 1024)


def epsilon_spent(task: Any, rounds: int, most_trained: int) -> float | None:
    """The epsilon of all rounds so far, at the option's delta; ``None`` without privacy.

    Parameters
    ----------
    task : FederatedTask
        Its privacy says what is accounted, see `CentralDP` and `LocalDP`.
    rounds : int
        Rounds done, empty ones included.
    most_trained : int
        Rounds in which the client trained that trained most; what local noise composes over.

    Examples
    --------
    >>> from workbench.federated import CentralDP, FederatedTask
    >>> task = FederatedTask(num_clients=100, clients_per_round=1, privacy=CentralDP(1.0))
    >>> round(epsilon_spent(task, 100, 0), 2)
    1.22
    """
    privacy = task.privacy
    if isinstance(privacy, CentralDP):
        return _central(privacy, task.clients_per_round, task.num_clients, rounds)
    if isinstance(privacy, LocalDP):
        return _local(privacy, most_trained)
    return None


@lru_cache(maxsize=4096)
def _central(privacy: CentralDP, sampled: int, clients: int, rounds: int) -> float:
    import dp_accounting as dp

    z = privacy.noise_multiplier
    if privacy.sampling == "poisson":
        each = dp.PoissonSampledDpEvent(sampled / clients, dp.GaussianDpEvent(z))
        return _composed(each, rounds, privacy.delta, replaced=False)
    # Replacing a client moves the sum by up to 2C, and this event's multiplier is relative to 2C.
    each = dp.SampledWithoutReplacementDpEvent(clients, sampled, dp.GaussianDpEvent(z / 2))
    return _composed(each, rounds, privacy.delta, replaced=True)


@lru_cache(maxsize=4096)
def _local(privacy: LocalDP, rounds: int) -> float:
    import dp_accounting as dp

    if rounds < 2:
        return rounds * privacy.epsilon
    each = dp.GaussianDpEvent(local_multiplier(privacy) / 2)
    return _composed(each, rounds, privacy.delta, replaced=True)


def _composed(event: Any, rounds: int, delta: float, replaced: bool) -> float:
    import dp_accounting as dp
    from dp_accounting.rdp import RdpAccountant

    relation = dp.NeighboringRelation.REPLACE_ONE if replaced else None
    accountant = RdpAccountant(ORDERS, relation or dp.NeighboringRelation.ADD_OR_REMOVE_ONE)
    accountant.compose(event, rounds)
    return float(accountant.get_epsilon(delta))


@lru_cache(maxsize=256)
def local_multiplier(privacy: LocalDP) -> float:
    """Standard deviation of a client's noise in units of ``clip_norm``: twice that of a query.

    Calibrated by dp-accounting for one round at sensitivity 1, times 2 as one client replaced by
    another moves the update by up to ``2 clip_norm``.
    """
    from dp_accounting.gaussian_mechanism import get_sigma_gaussian

    return 2.0 * float(get_sigma_gaussian(privacy.epsilon, privacy.delta))


def most_trained(rounds: Iterable[Iterable[str]]) -> int:
    """In how many rounds the client trained that trained most.

    Examples
    --------
    >>> most_trained([["a", "b"], ["a"], []])
    2
    """
    counts = Counter(name for names in rounds for name in names)
    return max(counts.values(), default=0)
