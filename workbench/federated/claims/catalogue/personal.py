"""A model of one's own beside the common one."""

from workbench.federated.claims.claim import Claim
from workbench.federated.claims.setting import base, run


def experiment(seed: int) -> dict[str, float]:
    """Ditto's personal models against FedAvg's common one, each on the client's own pairs."""
    return {
        "personal": run(base(seed, method="ditto")).rounds[-1].eval_loss,
        "common": run(base(seed)).rounds[-1].eval_loss,
    }


CLAIM = Claim(
    id="personal",
    sentence="A model that each client fits to itself serves it better than one for all.",
    named=("ST",),
    metric="held-out loss on each client's own pairs",
    unit="nat",
    arms=("personal", "common"),
    smallest=0.02,
    experiment=experiment,
    limits="One method (Ditto, lam 0.1); it makes twice the steps of FedAvg.",
)
