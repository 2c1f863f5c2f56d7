"""How much privacy a run has spent, by dp-accounting; never by formulas of our own.

Renyi accountants, as the library has them by default: an upper bound for both kinds of sampling, in
fractions of a second. Accountants of privacy loss distributions give less, but know no fixed
samples, and may take minutes where noise is weak.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from workbench.federated.options.privacy import CentralDP, LocalDP


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
    1.21
    """
    privacy = task.privacy
    if isinstance(privacy, CentralDP):
        return _central(privacy, task.clients_per_round, task.num_clients, rounds)
    if isinstance(privacy, LocalDP):
        return _local(privacy, most_trained)
    return None


def epsilon_said(task: Any, epsilon: float | None) -> dict[str, str]:
    """An epsilon to be shown, with its unit, neighbouring relation and q; none without privacy.

    Examples
    --------
    >>> from workbench.federated import FederatedTask, LocalDP
    >>> epsilon_said(FederatedTask(privacy=LocalDP()), 1.0)
    {'epsilon': '1 (unit: a client; replace one client; no sampling counted, q=1)'}
    """
    return {} if epsilon is None else {"epsilon": f"{epsilon:.4g} ({task.privacy.describe(task)})"}


def epsilon_after(
    privacy: CentralDP, sampled: int, clients: int, rounds: Sequence[int]
) -> list[float]:
    """The epsilon after several numbers of rounds, for little more than the price of one.

    Examples
    --------
    >>> round(epsilon_after(CentralDP(1.0), 1, 100, [100])[0], 2)
    1.21
    """
    from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon

    orders, once = _divergences(privacy, sampled, clients)
    return [float(compute_epsilon(orders, n * once, privacy.delta)[0]) for n in rounds]


@lru_cache(maxsize=4096)
def _divergences(privacy: CentralDP, sampled: int, clients: int) -> tuple[Any, Any]:
    """Orders, and the Renyi divergence of one round for each; rounds add up."""
    event, replaced = _round(privacy, sampled, clients)
    accountant = _accountant(event, 1, replaced)
    return accountant.orders, accountant.rdp


@lru_cache(maxsize=4096)
def _central(privacy: CentralDP, sampled: int, clients: int, rounds: int) -> float:
    event, replaced = _round(privacy, sampled, clients)
    return _composed(event, rounds, privacy.delta, replaced)


def _round(privacy: CentralDP, sampled: int, clients: int) -> tuple[Any, bool]:
    """What one round is to the accountant, and whether neighbours differ by a replaced client."""
    import dp_accounting as dp

    z = privacy.noise_multiplier
    if privacy.sampling == "poisson":
        return dp.PoissonSampledDpEvent(sampled / clients, dp.GaussianDpEvent(z)), False
    # Replacing a client moves the sum by up to 2C, and this event's multiplier is relative to 2C.
    return dp.SampledWithoutReplacementDpEvent(clients, sampled, dp.GaussianDpEvent(z / 2)), True


@lru_cache(maxsize=4096)
def _local(privacy: LocalDP, rounds: int) -> float:
    import dp_accounting as dp

    if rounds < 2:
        return rounds * privacy.epsilon
    each = dp.GaussianDpEvent(local_multiplier(privacy) / 2)
    return _composed(each, rounds, privacy.delta, replaced=True)


def _composed(event: Any, rounds: int, delta: float, replaced: bool) -> float:
    return float(_accountant(event, rounds, replaced).get_epsilon(delta))


def _accountant(event: Any, rounds: int, replaced: bool) -> Any:
    import dp_accounting as dp
    from dp_accounting.rdp import RdpAccountant

    relations = dp.NeighboringRelation
    relation = relations.REPLACE_ONE if replaced else relations.ADD_OR_REMOVE_ONE
    with _quiet():
        return RdpAccountant(neighboring_relation=relation).compose(event, rounds)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without a warning for each order whose divergence isn't found: the others give the bound."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


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
