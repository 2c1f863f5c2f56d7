"""One of four clients sends the opposite of what it learnt."""

from workbench.federated import Median, SignFlip
from workbench.federated.claims.claim import Claim
from workbench.federated.claims.setting import base, common_end, run

ATTACK = SignFlip(clients=(0,), scale=2.0)


def experiment(seed: int) -> dict[str, float]:
    """The median against the mean, attacked; beside it what the median costs without an attack."""
    return {
        "median": common_end(run(base(seed, attack=ATTACK, defence=Median()))),
        "mean": common_end(run(base(seed, attack=ATTACK))),
        "median, no attack": common_end(run(base(seed, defence=Median()))),
        "mean, no attack": common_end(run(base(seed))),
    }


CLAIM = Claim(
    id="robust-rule",
    sentence="Dishonest clients can spoil the mean; a robust rule of joining holds them off.",
    named=("ST",),
    metric="held-out loss on pairs of all topics, under attack",
    unit="nat",
    arms=("median", "mean"),
    beside=("median, no attack", "mean, no attack"),
    smallest=0.02,
    experiment=experiment,
    limits="One attack (sign flip, twice as large) by one of four clients, and one rule.",
)
