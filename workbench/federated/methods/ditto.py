"""Beside the common model each client trains its own, held near the common one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.federated.methods.base import Arrays, Method, Trained
from workbench.federated.methods.fedprox import pull
from workbench.federated.option import check_number


@dataclass(frozen=True)
class Ditto(Method):
    """FedAvg, and a personal model ``v_k`` with gradients ``g(v_k) + lam (v_k - w_t)``.

    The personal model makes as many steps as the common one, on the same batches, and is what the
    client is evaluated with; it never travels. Twice the computing of FedAvg.

    References
    ----------
    Li et al., arXiv 2012.04221.
    """

    stateful: ClassVar[bool] = True
    personal: ClassVar[bool] = True
    lam: float = 0.1

    def check(self) -> None:
        check_number(self, "lam", least=0.0)

    @property
    def passes(self) -> int:
        return 2

    def train(
        self, learner: Any, sent: Arrays, client: int, number: int, memory: Arrays
    ) -> Trained:
        weights, loss = learner.train(sent, client, number)
        near = pull(learner, sent, self.lam)
        mine, _ = learner.train(memory or sent, client, number, gradient=near)
        return Trained(weights, loss, mine)

    def own(self, sent: Arrays, memory: Arrays, start: Callable[[], Arrays]) -> Arrays:
        return memory or sent
