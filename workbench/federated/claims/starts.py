"""Two starts of full fine-tuning, each with the learning rate that suits it."""

from functools import lru_cache

from workbench.federated.claims.setting import base
from workbench.federated.history import History
from workbench.federated.simulation import simulate
from workbench.federated.task import FederatedTask

#: Learning rates to choose from, the same for both starts.
RATES = (1e-4, 3e-4, 1e-3)
#: What both start from.
STARTS = ("pretrained", "random")


def everything(start: str, seed: int, **changes) -> FederatedTask:
    """A federation that trains all weights, at the start's own rate."""
    return base(seed, tune="full", start=start, lr=rate(start, seed), **changes)


@lru_cache(maxsize=64)
def rate(start: str, seed: int) -> float:
    """The rate with the lowest loss on validation pairs, which nothing else looks at."""
    tasks = [base(seed, tune="full", start=start, lr=lr, eval_split="validation") for lr in RATES]
    return min(tasks, key=lambda task: simulated(task).rounds[-1].eval_loss).lr


def simulated(task: FederatedTask) -> History:
    """A run that isn't kept: all weights of many runs would fill the memory."""
    return simulate(task, progress=False)
