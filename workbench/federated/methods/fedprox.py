"""Clients are held near the server's model."""

from dataclasses import dataclass
from typing import Any

from workbench.federated.methods.base import Arrays, Method, Trained
from workbench.federated.option import check_number


@dataclass(frozen=True)
class FedProx(Method):
    """The loss gets ``mu/2 ||w - w_t||^2``, so each gradient gets ``mu (w - w_t)``.

    Flower's FedProx leaves this term to the client, and the recipe in its docstring adds nothing:
    its generator of the server's weights is empty after the first batch.

    References
    ----------
    Li et al., arXiv 1812.06127.
    """

    mu: float = 0.1

    def check(self) -> None:
        check_number(self, "mu", least=0.0)

    def train(
        self, learner: Any, sent: Arrays, client: int, number: int, memory: Arrays
    ) -> Trained:
        weights, loss = learner.train(sent, client, number, gradient=pull(learner, sent, self.mu))
        return Trained(weights, loss)


def pull(learner: Any, centre: Arrays, strength: float):
    """A hook that adds ``strength (w - centre)`` to the gradient of each array."""
    fixed = learner.tensors(centre)

    def add(parameters):
        for name, parameter in parameters.items():
            parameter.grad.add_(parameter.detach() - fixed[name], alpha=strength)

    return add
