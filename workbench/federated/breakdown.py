"""How far a joined update is from the honest clients' truth as more and more clients attack."""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np

from workbench.federated import defence

#: What attackers send, all the same: far away, or only a little off.
FAR, CLOSE = "far", "close"
#: How far off, in standard deviations of an honest client's number. The close one is ordinary for
#: a single number. It is odd in all numbers at once, where honest clients are 1 off on average, and
#: so are equal updates; the rules look for neither.
OFF = {FAR: 100.0, CLOSE: 1.5}


@dataclass(frozen=True)
class Rule:
    """A way to join ``n`` updates that is told to expect as many attackers as it can.

    Parameters
    ----------
    name : str
        As in a table.
    withstands : callable
        n -> the most attackers it is meant for.
    join : callable
        Updates, and that number -> their join.
    """

    name: str
    withstands: Callable[[int], int]
    join: Callable[[defence.Updates, int], defence.Update]


def _trimmed(updates: defence.Updates, f: int) -> defence.Update:
    return defence.trimmed_mean(updates, (f + 0.5) / len(updates))  # int() of it is f


def _multi_krum(updates: defence.Updates, f: int) -> defence.Update:
    return defence.multi_krum(updates, f, len(updates) - 2 * f)


#: The rules, told to withstand as many as they can; n >= 2f + 3 for Krum, 4f + 3 for Bulyan. The
#: trimmed mean could cut up to half; a quarter at each end is cut here, so that something is left.
RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule("mean", lambda n: 0, lambda updates, f: updates.mean(0)),
        Rule("median", lambda n: (n - 1) // 2, lambda updates, f: defence.median(updates)),
        Rule("trimmed mean", lambda n: n // 4, _trimmed),
        Rule("Krum", lambda n: (n - 3) // 2, defence.krum),
        Rule("Multi-Krum", lambda n: (n - 3) // 2, _multi_krum),
        Rule("Bulyan", lambda n: (n - 3) // 4, defence.bulyan),
    )
}


def attacked_updates(
    clients: int, attackers: int, attack: str = FAR, numbers: int = 30, seed: int = 0
) -> defence.Updates:
    """Honest rows around 1, one a client, each number with deviation 1; attackers come first.

    Attackers agree: all send ``1 - off`` in each number, with `OFF` of the attack.

    Raises
    ------
    ValueError
        If the attack has no such name, or not 0 <= attackers <= clients.

    Examples
    --------
    >>> attacked_updates(clients=3, attackers=2, numbers=2)[:2]
    array([[-99., -99.],
           [-99., -99.]])
    """
    if attack not in OFF:
        raise ValueError(f"attack={attack!r}; it is one of {list(OFF)}.")
    if not 0 <= attackers <= clients:
        raise ValueError(f"attackers={attackers} of {clients} clients; it is 0 to {clients}.")
    updates = 1 + np.random.default_rng(seed).normal(size=(clients, numbers))
    updates[:attackers] = 1 - OFF[attack]
    return updates


def error(rule: str, updates: defence.Updates) -> float:
    """Distance of the joined update from the truth, 1 in each number, by its root mean square.

    Honest clients are at a distance of 1, and the mean of n of them at about ``1 / sqrt(n)``.

    Raises
    ------
    ValueError
        If the rule has no such name, or there are too few updates for it.
    """
    if rule not in RULES:
        raise ValueError(f"rule={rule!r}; it is one of {list(RULES)}.")
    chosen, n = RULES[rule], len(updates)
    if rule != "mean" and chosen.withstands(n) < 1:
        raise ValueError(f"{rule} of {n} updates withstands nobody. Take more clients")
    off = chosen.join(updates, chosen.withstands(n)) - 1
    return float(np.linalg.norm(off) / sqrt(off.size))


def errors(
    rule: str, clients: int, attack: str = FAR, numbers: int = 30, seeds: int = 1
) -> list[float]:
    """The error with 0, 1, 2, .. attackers, up to half of the clients and one more; mean of seeds.

    Examples
    --------
    >>> few, *_, many = errors("median", clients=5)
    >>> few < 1 < many
    True
    """
    most = clients // 2 + 1
    return [
        float(
            np.mean(
                [
                    error(rule, attacked_updates(clients, count, attack, numbers, seed))
                    for seed in range(seeds)
                ]
            )
        )
        for count in range(most + 1)
    ]
