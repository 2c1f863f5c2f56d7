"""The rounds that a pretrained start saves."""

from workbench.federated.claims.claim import Claim
from workbench.federated.claims.starts import STARTS, everything, simulated
from workbench.federated.history import History

ROUNDS = 4


def experiment(seed: int) -> dict[str, float]:
    """Full fine-tuning of both; the common loss is the higher of their lowest ones."""
    curves = {start: losses(simulated(everything(start, seed, rounds=ROUNDS))) for start in STARTS}
    target = max(map(min, curves.values()))
    return {
        start: next(number for number, loss in enumerate(curve) if loss <= target)
        for start, curve in curves.items()
    } | {f"last loss, {start}": curve[-1] for start, curve in curves.items()}


def losses(history: History) -> list[float]:
    """Held-out loss of the start, then after each round."""
    return [history.start.loss, *(each.eval_loss for each in history.rounds)]


CLAIM = Claim(
    id="pretrained-rounds",
    sentence="Federated tuning from a pretrained start needs fewer rounds than from a random one.",
    named=("S2",),
    metric="rounds until a common held-out loss is reached",
    unit="rounds",
    arms=STARTS,
    beside=tuple(f"last loss, {start}" for start in STARTS),
    smallest=1.0,
    experiment=experiment,
    limits=f"{ROUNDS} rounds: what a random start would need to catch up isn't seen, only that it "
    "is more.",
)
