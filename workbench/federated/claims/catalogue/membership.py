"""Noise on the joined update against what the model gives away; and what the noise costs."""

from workbench.federated import CentralDP
from workbench.federated.claims.catalogue.memorised import TIMES, remembered
from workbench.federated.claims.claim import Claim

#: Noise as large as a client's whole clipped update.
NOISE = CentralDP(noise_multiplier=1.0, clip_norm=0.5, delta=1e-5)


def experiment(seed: int) -> dict[str, float]:
    """The same canaries, with differential privacy for a client and without."""
    noisy, plain = remembered(seed, TIMES, NOISE), remembered(seed, TIMES)
    return {
        "noise": noisy["auc"],
        "no noise": plain["auc"],
        "loss, noise": noisy["loss"],
        "loss, no noise": plain["loss"],
        "epsilon": noisy["epsilon"],
    }


CLAIM = Claim(
    id="membership",
    sentence="A tuned model tells who was in its training data; differential privacy hides it.",
    named=("ST", "P"),
    metric="AUC of telling trained canaries from others",
    unit="AUC",
    arms=("noise", "no noise"),
    beside=("loss, noise", "loss, no noise", "epsilon"),
    smallest=0.05,
    experiment=experiment,
    limits="Four clients, all in every round: noise for so few spoils the model (see its loss).",
)
