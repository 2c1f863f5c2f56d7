"""Weights by size or equal weights, for the client that is worst off."""

from dataclasses import replace

from workbench.federated import FedAvg
from workbench.federated.claims.claim import Claim
from workbench.federated.claims.setting import run, unequal
from workbench.federated.history import History


def worst(history: History) -> float:
    """The highest loss of a client at the end [nat]."""
    return max(each["loss"] for each in history.rounds[-1].evaluation.clients.values())


def experiment(seed: int) -> dict[str, float]:
    """The worst client's loss, and beside it everybody's."""
    equal, by_rows = (
        run(replace(unequal(seed), method=FedAvg(weighting="uniform"))),
        run(unequal(seed)),
    )
    return {
        "equal weights": worst(equal),
        "weights by rows": worst(by_rows),
        "all, equal weights": equal.rounds[-1].eval_loss,
        "all, weights by rows": by_rows.rounds[-1].eval_loss,
    }


CLAIM = Claim(
    id="fairness",
    sentence="Weights by size leave somebody behind; equal weights treat the worst client better.",
    named=("ST", "P"),
    metric="held-out loss of the worst client",
    unit="nat",
    arms=("equal weights", "weights by rows"),
    beside=("all, equal weights", "all, weights by rows"),
    smallest=0.02,
    experiment=experiment,
    limits="One owner of 64 pairs and three of 8; the worst of four clients is a single one.",
)
