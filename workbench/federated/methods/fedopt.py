"""The mean change is a gradient, and the server an adaptive optimizer."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbench.federated.methods.base import Arrays, Method, ServerState, Update
from workbench.federated.option import check_number


@dataclass(frozen=True)
class FedAdam(Method):
    """``m = b1 m + (1-b1) D; v = b2 v + (1-b2) D^2; w += server_lr m / (sqrt(v) + tau)``.

    ``D`` is the mean change; ``v`` starts at ``tau^2``, in float64, without a bias correction, as
    published. Flower's FedAdam corrects with ``round + 1`` in place of ``round``, so it isn't used.
    Changes of adapters are small: tune ``server_lr`` and ``tau`` together.

    References
    ----------
    Reddi et al., arXiv 2003.00295, algorithm 2.
    """

    server_lr: float = 0.01
    tau: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.99

    def check(self) -> None:
        for name in ("server_lr", "tau"):
            check_number(self, name)
        for name in ("beta1", "beta2"):
            check_number(self, name, least=0.0, below=1.0)

    def start(self, weights: Arrays, num_clients: int) -> Arrays:
        first = {f"m/{name}": np.zeros(a.shape) for name, a in weights.items()}
        return first | {f"v/{name}": np.full(a.shape, self.tau**2) for name, a in weights.items()}

    def second_moment(self, v: np.ndarray, change: np.ndarray) -> np.ndarray:
        """The running mean of squared changes."""
        return self.beta2 * v + (1 - self.beta2) * change**2

    def step(
        self, server: ServerState, joined: Arrays, updates: Sequence[Update], num_clients: int
    ) -> ServerState:
        weights, memory = {}, {}
        for name, old in server.weights.items():
            change = joined[name].astype(np.float64) - old
            m = self.beta1 * server.memory[f"m/{name}"] + (1 - self.beta1) * change
            v = self.second_moment(server.memory[f"v/{name}"], change)
            weights[name] = (old + self.server_lr * m / (np.sqrt(v) + self.tau)).astype(old.dtype)
            memory |= {f"m/{name}": m, f"v/{name}": v}
        return ServerState(weights, server.base_deltas, memory)


@dataclass(frozen=True)
class FedYogi(FedAdam):
    """FedAdam with ``v -= (1-b2) D^2 sign(v - D^2)``: ``v`` moves slowly when changes shrink."""

    def second_moment(self, v: np.ndarray, change: np.ndarray) -> np.ndarray:
        return v - (1 - self.beta2) * change**2 * np.sign(v - change**2)
