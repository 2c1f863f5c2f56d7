"""A stays as drawn from the seed; only B is trained, sent and averaged."""

from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.federated.methods.base import Arrays, Method, Trained
from workbench.federated.methods.factors import B


@dataclass(frozen=True)
class FfaLora(Method):
    """FedAvg of B alone: with one A for all, ``mean(B) A`` is the mean of B A, in half the bytes.

    Every client draws A from the task's seed; its gradients are set to 0. Half as many numbers
    are trained, so at equal rank it can do less.

    References
    ----------
    Sun et al., arXiv 2403.12313.
    """

    tunes: ClassVar[tuple[str, ...]] = ("lora",)

    def shared(self, weights: dict[str, Any], client: int) -> dict[str, Any]:
        return {name: array for name, array in weights.items() if name.endswith(B)}

    def used(self, learner: Any, sent: Arrays) -> Arrays:
        return learner.start() | sent

    def train(
        self, learner: Any, sent: Arrays, client: int, number: int, memory: Arrays
    ) -> Trained:
        start = self.used(learner, sent)
        weights, loss = learner.train(start, client, number, gradient=hold_a)
        return Trained({name: weights[name] for name in sent}, loss)


def hold_a(parameters: dict[str, Any]) -> None:
    """Set the gradients of all arrays but B to 0."""
    for name, parameter in parameters.items():
        if not name.endswith(B):
            parameter.grad.zero_()
