"""The bytes that a loss costs, with adapters and with all weights."""

from workbench.federated.claims.claim import Claim
from workbench.federated.claims.setting import base, bytes_at_equal_loss, run
from workbench.federated.claims.starts import everything, simulated


def experiment(seed: int) -> dict[str, float]:
    """Powers of ten of what all clients send until both arms have reached one loss."""
    adapters, weights = run(base(seed)), simulated(everything("pretrained", seed))
    few, many = bytes_at_equal_loss(adapters, weights)
    return {
        "LoRA": few,
        "all weights": many,
        "loss, LoRA": adapters.rounds[-1].eval_loss,
        "loss, all weights": weights.rounds[-1].eval_loss,
    }


CLAIM = Claim(
    id="few-weights",
    sentence="Tuning few weights cuts communication by orders of magnitude at an equal loss.",
    named=("S3", "ST"),
    metric="bytes that clients send until a common loss is reached",
    unit="powers of ten",
    arms=("LoRA", "all weights"),
    beside=("loss, LoRA", "loss, all weights"),
    smallest=1.0,
    experiment=experiment,
    limits="The way up only. Losses are looked at after whole rounds, and there are two.",
)
