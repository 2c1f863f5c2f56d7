"""Clients with like data against clients with unlike data."""

from workbench.federated import Iid
from workbench.federated.claims.claim import Claim
from workbench.federated.claims.setting import SKEWED, base, common_end, run


def experiment(seed: int) -> dict[str, float]:
    """The same rows, dealt evenly or by topic."""
    return {
        "alike": common_end(run(base(seed, partition=Iid()))),
        "unlike": common_end(run(base(seed, partition=SKEWED))),
    }


CLAIM = Claim(
    id="unlike-data",
    sentence="Where clients' data are unlike, the common model is worse than where they are alike.",
    named=("ST", "P", "S2"),
    metric="held-out loss on pairs of all topics",
    unit="nat",
    arms=("alike", "unlike"),
    smallest=0.02,
    experiment=experiment,
    limits="Skew of topics (Dirichlet 0.1), not of language or quality; two rounds.",
)
