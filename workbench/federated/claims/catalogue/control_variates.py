"""Correcting each client's direction, where their data are unlike."""

from workbench.federated.claims.claim import Claim
from workbench.federated.claims.setting import SKEWED, base, common_end, run


def experiment(seed: int) -> dict[str, float]:
    """SCAFFOLD against FedAvg on the same skewed clients; it sends twice as much."""
    corrected, plain = (
        run(base(seed, partition=SKEWED, method="scaffold")),
        run(base(seed, partition=SKEWED)),
    )
    return {
        "SCAFFOLD": common_end(corrected),
        "FedAvg": common_end(plain),
        "bytes up, ratio": corrected.rounds[0].uplink_bytes / plain.rounds[0].uplink_bytes,
    }


CLAIM = Claim(
    id="control-variates",
    sentence="Control variates mend what unlike data do to federated averaging.",
    named=("P",),
    metric="held-out loss on pairs of all topics",
    unit="nat",
    arms=("SCAFFOLD", "FedAvg"),
    beside=("bytes up, ratio",),
    smallest=0.01,
    experiment=experiment,
    limits="Two rounds: the corrections act in the second only. By AdamW, for which SCAFFOLD is "
    "not derived; its server counts all clients alike, and FedAvg's by their rows.",
)
