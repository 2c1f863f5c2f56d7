"""Holding clients near the server's model, where their data are unlike."""

from workbench.federated import FedProx
from workbench.federated.claims.claim import Claim
from workbench.federated.claims.setting import SKEWED, base, common_end, run


def experiment(seed: int) -> dict[str, float]:
    """FedProx against FedAvg on the same skewed clients."""
    return {
        "FedProx": common_end(run(base(seed, partition=SKEWED, method=FedProx(mu=1.0)))),
        "FedAvg": common_end(run(base(seed, partition=SKEWED))),
    }


CLAIM = Claim(
    id="proximal",
    sentence="A proximal term mends what unlike data do to federated averaging.",
    named=("P",),
    metric="held-out loss on pairs of all topics",
    unit="nat",
    arms=("FedProx", "FedAvg"),
    smallest=0.01,
    experiment=experiment,
    limits="One strength (mu 1) and few local steps, so that clients can't drift far.",
)
