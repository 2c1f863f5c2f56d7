"""What unlike clients cost a pretrained start, and a random one."""

from workbench.federated import Iid
from workbench.federated.claims.claim import Claim
from workbench.federated.claims.starts import STARTS, everything, simulated
from workbench.federated.evaluation import evaluate


def experiment(seed: int) -> dict[str, float]:
    """Both partitions' models on one yardstick: the held-out pairs of the unlike clients."""
    return {start: cost(start, seed) for start in STARTS}


def cost(start: str, seed: int) -> float:
    """Loss after training on whole topics, less that after the same rows dealt evenly."""
    task = everything(start, seed)
    unlike, alike = simulated(task), simulated(everything(start, seed, partition=Iid()))
    return unlike.rounds[-1].eval_loss - evaluate(task, alike.weights).loss


CLAIM = Claim(
    id="pretrained-unlike",
    sentence="A pretrained start suffers less from clients with unlike data than a random one.",
    named=("S2",),
    metric="rise of the held-out loss by clients of whole topics",
    unit="nat",
    arms=STARTS,
    smallest=0.02,
    experiment=experiment,
    limits="Two rounds: a random start that has hardly learnt has little to lose.",
)
