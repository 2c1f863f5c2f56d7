"""Whether it matters for the loss that averaging factors is inexact."""

from workbench.federated.claims.claim import Claim
from workbench.federated.claims.setting import base, common_end, run


def experiment(seed: int) -> dict[str, float]:
    """FedEx-LoRA, which adds the missing residual to the base, against plain averaging."""
    exact, plain = run(base(seed, method="fedexlora")), run(base(seed))
    return {"exact": common_end(exact), "averaged factors": common_end(plain)}


CLAIM = Claim(
    id="exact-mean",
    sentence="An exact mean of the clients' low-rank changes gives a better model.",
    named=("2409.05976",),
    metric="held-out loss on pairs of all topics",
    unit="nat",
    arms=("exact", "averaged factors"),
    smallest=0.01,
    experiment=experiment,
    limits="Two rounds at rank 8; the residual matters more with more drift.",
)
