"""The common model is a centre that each client's own model may leave at a price."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.federated.methods.base import Arrays, Method, Trained
from workbench.federated.methods.fedprox import pull
from workbench.federated.option import check_number, check_whole


@dataclass(frozen=True)
class PFedMe(Method):
    """A step: ``theta ~ argmin f + lam/2 ||theta - w||^2``, then ``w -= eta lam (w - theta)``.

    ``theta`` is found by ``inner_steps`` steps of the task's optimizer from ``w``, on batches of
    that step; the last one is the client's own model, which never travels. As many gradients as
    ``inner_steps`` FedAvg clients. The server takes the mean (beta = 1).

    References
    ----------
    Dinh et al., arXiv 2006.08848.
    """

    stateful: ClassVar[bool] = True
    personal: ClassVar[bool] = True
    lam: float = 15.0
    eta: float = 0.005
    inner_steps: int = 3

    def check(self) -> None:
        check_number(self, "lam")
        check_number(self, "eta")
        check_whole(self, "inner_steps", 1)
        if self.eta * self.lam > 1:
            raise ValueError(
                f"PFedMe: eta lam = {self.eta * self.lam:g}; above 1 a step goes past the client's "
                f"own model. Take eta of at most {1 / self.lam:g}."
            )

    @property
    def passes(self) -> int:
        return self.inner_steps

    def train(
        self, learner: Any, sent: Arrays, client: int, number: int, memory: Arrays
    ) -> Trained:
        centre, losses, theta = dict(sent), [], sent
        for step in range(learner.task.local_steps):
            near = pull(learner, centre, self.lam)
            theta, loss = learner.train(
                centre, client, number, gradient=near, count=self.inner_steps, step=step
            )
            losses.append(loss)
            rate = self.eta * self.lam
            centre = {n: (w - rate * (w - theta[n])).astype(w.dtype) for n, w in centre.items()}
        return Trained(centre, sum(losses) / len(losses), theta)

    def own(self, sent: Arrays, memory: Arrays, start: Callable[[], Arrays]) -> Arrays:
        return memory or sent
