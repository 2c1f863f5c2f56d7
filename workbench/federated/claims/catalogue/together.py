"""Owners who train together against owners who train alone."""

from workbench.federated.claims.claim import Claim
from workbench.federated.claims.setting import alone, base, run


def experiment(seed: int) -> dict[str, float]:
    """Equal steps for every client; the loss on the client's own held-out pairs."""
    task = base(seed)
    together = run(task)
    return {
        "together": together.rounds[-1].eval_loss,
        "alone": alone(task).loss,
        "pretrained": together.start.loss,
    }


CLAIM = Claim(
    id="together",
    sentence="Owners who tune a model together get a better one than each gets from its own data.",
    named=("S2", "S3"),
    metric="held-out loss on each client's own pairs",
    unit="nat",
    arms=("together", "alone"),
    beside=("pretrained",),
    smallest=0.02,
    experiment=experiment,
    limits="Four owners of one corpus, each judged on its own topics: this favours training alone.",
)
