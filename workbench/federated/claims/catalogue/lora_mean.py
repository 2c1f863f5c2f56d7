"""The mean of LoRA's factors is not the mean of what the clients changed."""

import numpy as np

from workbench.federated.claims.claim import Claim
from workbench.federated.claims.setting import base, rounds_from
from workbench.federated.learner import Learner
from workbench.federated.methods.base import Update, mean
from workbench.federated.methods.factors import pairs, product, stacked


def errors(updates: list[Update]) -> tuple[float, float]:
    """Relative error of stacked factors and of averaged ones, over all adapted weights."""
    averaged, off_stack, off_mean, size = mean(updates, by_rows=True), 0.0, 0.0, 0.0
    rows = sum(update.examples for update in updates)
    for pair in pairs(updates[0].arrays):
        exact = sum(
            u.examples / rows * u.arrays[pair.b].astype(np.float64) @ u.arrays[pair.a]
            for u in updates
        )
        naive = averaged[pair.b].astype(np.float64) @ averaged[pair.a]
        off_stack += np.sum((product(*stacked(updates, pair), 1.0) - exact) ** 2)
        off_mean += np.sum((naive - exact) ** 2)
        size += np.sum(exact**2)
    return float(np.sqrt(off_stack / size)), float(np.sqrt(off_mean / size))


def experiment(seed: int) -> dict[str, float]:
    """One real round of clients with unlike data."""
    learner = Learner(base(seed))
    clients = range(len(learner.clients))
    _, rounds = rounds_from(learner, learner.start(), clients, [1])
    stacks, averages = errors(rounds[0])
    return {"factors stacked": stacks, "factors averaged": averages}


CLAIM = Claim(
    id="lora-mean",
    sentence="Averaging LoRA's two factors apart is not the mean of the clients' changes.",
    named=("2409.05976",),
    metric="error against the exact mean, relative to its size",
    unit="share",
    arms=("factors stacked", "factors averaged"),
    smallest=0.05,
    experiment=experiment,
    limits="After one round from B = 0, all clients with the same A; later rounds drift farther.",
)
