"""Whether owners of little data gain by joining one of much."""

from statistics import fmean

from workbench.federated.claims.claim import Claim
from workbench.federated.claims.setting import TOPICS, alone, run, unequal


def experiment(seed: int) -> dict[str, float]:
    """The mean loss of the three small owners, each on its own topic."""
    task = unequal(seed)
    ends, single = run(task).rounds[-1].evaluation.clients, alone(task).clients
    return {
        "joined": fmean(ends[topic]["loss"] for topic in TOPICS[1:]),
        "alone": fmean(single[topic]["loss"] for topic in TOPICS[1:]),
    }


CLAIM = Claim(
    id="small-owners",
    sentence="Building a model together gives small owners one that they couldn't make alone.",
    named=("S2", "S3"),
    metric="held-out loss of the small owners",
    unit="nat",
    arms=("joined", "alone"),
    smallest=0.02,
    experiment=experiment,
    limits="Three owners of 8 pairs, another topic each, and one of 64; few steps.",
)
