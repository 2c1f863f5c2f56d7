"""The bytes that a loss costs, with 8 bits a number and with 32."""

from workbench.federated.claims.claim import Claim
from workbench.federated.claims.setting import base, bytes_at_equal_loss, run


def experiment(seed: int) -> dict[str, float]:
    """Powers of ten of what all clients send until both arms have reached one loss."""
    short, plain = run(base(seed, compression="int8")), run(base(seed))
    few, many = bytes_at_equal_loss(short, plain)
    return {
        "8 bits": few,
        "32 bits": many,
        "loss, 8 bits": short.rounds[-1].eval_loss,
        "loss, 32 bits": plain.rounds[-1].eval_loss,
    }


CLAIM = Claim(
    id="compression",
    sentence="Updates can be sent in far fewer bytes without a worse model.",
    named=("ST",),
    metric="bytes that clients send until a common loss is reached",
    unit="powers of ten",
    arms=("8 bits", "32 bits"),
    beside=("loss, 8 bits", "loss, 32 bits"),
    smallest=0.3,
    experiment=experiment,
    limits="The way up only. Losses are looked at after whole rounds, and there are two.",
)
