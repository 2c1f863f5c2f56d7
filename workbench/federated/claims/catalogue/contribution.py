"""Who contributed how much: exact Shapley values, or what is lost without one client."""

from itertools import combinations
from math import comb

from scipy.stats import spearmanr

from workbench.datasets import load
from workbench.federated.attack import flip_labels
from workbench.federated.claims.claim import Claim
from workbench.federated.claims.setting import (
    PLANTED,
    common_loss,
    common_rows,
    on_few,
    rounds_from,
)
from workbench.federated.learner import Learner
from workbench.federated.methods.base import Update, mean
from workbench.federated.partition import Row, generator

#: Owners, pairs of each, and validation pairs that its worth is measured on.
OWNERS, ROWS, JUDGES = 6, 16, 24


def graded_rows(seed: int) -> list[Row]:
    """Like pairs for all; client i has wrong answers in i/5 of them."""
    pool = [row for row in load("chatterbot") if row["split"] == "train"]
    draw, made = generator(seed, PLANTED, 2), []
    order = draw.permutation(len(pool))
    for client in range(OWNERS):
        mine = [pool[i] for i in order[client * ROWS : (client + 1) * ROWS]]
        wrong = round(ROWS * client / (OWNERS - 1))
        flipped = flip_labels(mine[:wrong], draw) if wrong else []
        made += [row | {"client": f"owner {client}"} for row in [*flipped, *mine[wrong:]]]
    held_out = [row for row in load("chatterbot") if row["split"] == "test"][:OWNERS]
    return made + [row | {"client": f"owner {i}"} for i, row in enumerate(held_out)]


def shapley(worth: dict[frozenset[int], float], clients: range) -> list[float]:
    """Each client's mean gain over all orders of joining: ``sum w(S) (v(S + i) - v(S))``.

    Examples
    --------
    >>> worth = {(): 0.0, (0,): 1.0, (1,): 3.0, (0, 1): 6.0}
    >>> shapley({frozenset(k): v for k, v in worth.items()}, range(2))
    [2.0, 4.0]
    """
    n, values = len(clients), []
    for client in clients:
        total = 0.0
        for group in worth:
            if client not in group:
                gain = worth[group | {client}] - worth[group]
                total += gain / (n * comb(n - 1, len(group)))
        values.append(total)
    return values


def worths(learner: Learner, updates: list[Update], rows: list[Row]) -> dict[frozenset, float]:
    """Minus the loss of the mean of each group's updates; the empty group has the start."""
    found = {}
    for size in range(len(updates) + 1):
        for group in combinations(updates, size):
            weights = mean(group, by_rows=False) if group else learner.start()
            found[frozenset(u.client for u in group)] = -common_loss(learner, weights, rows)
    return found


def experiment(seed: int) -> dict[str, float]:
    """Rank correlation of each measure with the share of right answers: 64 evaluations."""
    task = on_few(graded_rows(seed), seed)
    learner = Learner(task)
    clients = range(task.num_clients)
    _, rounds = rounds_from(learner, learner.start(), clients, [1])
    worth = worths(learner, rounds[0], common_rows(seed, "validation", JUDGES))
    everybody = frozenset(clients)
    wrong = [int(each.name.split()[-1]) for each in learner.clients]
    missed = [worth[everybody] - worth[everybody - {client}] for client in clients]
    single = [worth[frozenset({client})] for client in clients]
    ways = {"Shapley": shapley(worth, clients), "leave one out": missed, "alone": single}
    clean = [-each for each in wrong]
    return {name: float(spearmanr(values, clean).statistic) for name, values in ways.items()}


CLAIM = Claim(
    id="contribution",
    sentence="Shapley values tell who contributed, better than leaving one out does.",
    named=("ST", "T10"),
    metric="rank correlation with the share of right answers",
    unit="correlation",
    arms=("Shapley", "leave one out"),
    beside=("alone",),
    smallest=0.1,
    higher_is_better=True,
    experiment=experiment,
    limits="One round, six clients of equal size that differ in wrong answers alone.",
)
