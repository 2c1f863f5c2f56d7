"""Methods in which clients have unlike ranks."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from workbench.federated.methods.base import Arrays, Method, Trained
from workbench.federated.methods.factors import A
from workbench.federated.option import check_ranks


@dataclass(frozen=True)
class Ranked(Method):
    """FedAvg in which client i has the first ``ranks[i % len(ranks)]`` rows of A, columns of B.

    All clients hold adapters of the task's rank, with zeros in both factors beyond their own, whose
    gradients stay exactly 0; only their own rows travel. One scale for all ranks.
    """

    tunes: ClassVar[tuple[str, ...]] = ("lora",)
    ranks: tuple[int, ...] = (8, 4, 2)

    def check(self) -> None:
        check_ranks(self)

    def check_task(self, task: Any) -> None:
        if max(self.ranks) != task.lora_rank:
            raise ValueError(
                f"{self!r} with lora_rank={task.lora_rank}; the task's rank is that of the server's"
                f" adapters, the largest one. Take lora_rank={max(self.ranks)}, or other ranks."
            )

    def shared(self, weights: dict[str, Any], client: int) -> dict[str, Any]:
        rank = self.ranks[client % len(self.ranks)]
        return {name: cut(name, array, rank) for name, array in weights.items()}

    def used(self, learner: Any, sent: Arrays) -> Arrays:
        return {n: padded(a, tuple(learner.parameters[n].shape)) for n, a in sent.items()}

    def train(
        self, learner: Any, sent: Arrays, client: int, number: int, memory: Arrays
    ) -> Trained:
        weights, loss = learner.train(self.used(learner, sent), client, number)
        return Trained(self.shared(weights, client), loss)


def cut(name: str, array: Any, rank: int) -> Any:
    """The first rows of A or columns of B; of a shape where ``array`` is none."""
    one, other = array.shape
    shape = (min(rank, one), other) if name.endswith(A) else (one, min(rank, other))
    if isinstance(array, np.ndarray):
        return np.ascontiguousarray(array[: shape[0], : shape[1]])
    return replace(array, shape=shape)


def padded(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array with zeros after its last row and column.

    Examples
    --------
    >>> padded(np.ones((1, 2)), (2, 2)).tolist()
    [[1.0, 1.0], [0.0, 0.0]]
    """
    return np.pad(array, [(0, n - have) for n, have in zip(shape, array.shape, strict=True)])
