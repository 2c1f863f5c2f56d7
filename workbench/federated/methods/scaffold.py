"""Control variates take out the drift of unlike clients."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from workbench.federated.methods.base import (
    Arrays,
    Method,
    ServerState,
    Trained,
    Update,
    as_control,
    control_part,
    model_part,
)


@dataclass(frozen=True)
class Scaffold(Method):
    """A client steps along ``g - c_k + c``; twice the traffic of FedAvg.

    ``c_k`` becomes the mean of the client's own gradients in the round, which with SGD is option II
    of the paper; with AdamW, whose steps are no gradients, it is a heuristic. The server takes the
    uniform mean of the models, and ``c += (clients that answered / num_clients) mean(change of
    c_k)``. The control variates of a client that is seldom asked are stale; and one that is asked
    for the first time late in a run changes far more than the others, so that a limit of 10 times
    their median refuses it: give ``max_update_norm``. Not in Flower.

    References
    ----------
    Karimireddy et al., arXiv 1910.06378.
    """

    stateful: ClassVar[bool] = True

    def rows_weigh(self) -> bool:
        return False

    def down(self, weights: dict[str, Any], client: int) -> dict[str, Any]:
        return weights | as_control(weights)

    def start(self, weights: Arrays, num_clients: int) -> Arrays:
        return {name: np.zeros_like(array) for name, array in weights.items()}

    def outgoing(self, server: ServerState, client: int) -> Arrays:
        return server.weights | as_control(server.memory)

    def reference(self, sent: dict[str, Any], client: int) -> dict[str, Any]:
        zeros = {name: np.zeros_like(a) for name, a in control_part(sent).items()}
        return model_part(sent) | as_control(zeros)

    def step(
        self, server: ServerState, joined: Arrays, updates: Sequence[Update], num_clients: int
    ) -> ServerState:
        share = np.float32(len(updates) / num_clients)
        moved = control_part(joined)
        memory = {name: c + share * moved[name] for name, c in server.memory.items()}
        return ServerState(model_part(joined), server.base_deltas, memory)

    def train(
        self, learner: Any, sent: Arrays, client: int, number: int, memory: Arrays
    ) -> Trained:
        common, model = control_part(sent), model_part(sent)
        mine = memory or {name: np.zeros_like(c) for name, c in common.items()}
        shift = learner.tensors({name: common[name] - mine[name] for name in common})
        gradients = {name: np.zeros(c.shape) for name, c in common.items()}
        steps = learner.task.local_steps

        def correct(parameters):
            for name, parameter in parameters.items():
                gradients[name] += parameter.grad.cpu().numpy() / steps
                parameter.grad.add_(shift[name])

        weights, loss = learner.train(model, client, number, gradient=correct)
        after = {name: g.astype(np.float32) for name, g in gradients.items()}
        change = {name: after[name] - mine[name] for name in after}
        return Trained(weights | as_control(change), loss, after)
