"""The server is gone after the first round: clients answer from the last model they got."""

from workbench.federated.claims.claim import Claim
from workbench.federated.claims.setting import base, run


def experiment(seed: int) -> dict[str, float]:
    """What clients still have, against a service that only the server could give."""
    history = run(base(seed))
    return {
        "last global model": history.rounds[0].eval_loss,
        "pretrained": history.start.loss,
        "all rounds": history.rounds[-1].eval_loss,
    }


CLAIM = Claim(
    id="server-gone",
    sentence="Clients that hold the model go on answering, and well, while the server is down.",
    named=("S3",),
    metric="held-out loss on each client's own pairs",
    unit="nat",
    arms=("last global model", "pretrained"),
    beside=("all rounds",),
    smallest=0.02,
    experiment=experiment,
    limits="Loss only: how long an answer takes with and without a server isn't measured.",
)
