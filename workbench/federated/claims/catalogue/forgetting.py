"""What is forgotten of old eras when only the newest one trains."""

from workbench.federated.claims.catalogue.new_era import histories
from workbench.federated.claims.claim import Claim


def experiment(seed: int) -> dict[str, float]:
    """Loss on the old eras, with their owners still there and without."""
    found = histories(seed)
    return {
        "old owners stay": found["everyone"]["old"],
        "new data only": found["new data only"]["old"],
        "before the new era": found["before"]["old"],
    }


CLAIM = Claim(
    id="forgetting",
    sentence="A model tuned on new data alone forgets the old; owners who stay prevent it.",
    named=("S3",),
    metric="held-out loss on the old eras",
    unit="nat",
    arms=("old owners stay", "new data only"),
    beside=("before the new era",),
    smallest=0.02,
    experiment=experiment,
    limits="Where the old owners stay, three clients make steps; with new data only, one does.",
)
