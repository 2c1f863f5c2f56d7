"""Methods that merge what their adapters can't hold into the base."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from workbench.federated.methods.factors import Pair, pairs, product

LEFT, RIGHT, BASE = "left/", "right/", "base/"


@dataclass(frozen=True)
class Merging(Method):
    """FedAvg whose base changes, too: each round adds a product of two thin factors to it.

    A client keeps nothing: it gets what was merged so far as stacked factors, or as the dense
    change once that is smaller, so it may be absent, or restarted, at any time. The server and the
    clients compute the base by the same product, to the same bits.
    """

    tunes: ClassVar[tuple[str, ...]] = ("lora",)

    def residual(
        self, server: ServerState, joined: Arrays, updates: Sequence[Update], pair: Pair
    ) -> tuple[np.ndarray, np.ndarray]:
        """The factors of what this round adds to one weight of the base, without LoRA's scale."""
        raise NotImplementedError

    def merged(self, weights: dict[str, Any], updates: int) -> dict[str, Any]:
        sent = {}
        for pair in pairs(weights):
            (rank, inner), (outer, _) = weights[pair.a].shape, weights[pair.b].shape
            stack, spec = rank * updates, weights[pair.a]
            if is_thin(stack, outer, inner):
                sent[LEFT + pair.weight] = replace(spec, shape=(outer, stack))
                sent[RIGHT + pair.weight] = replace(spec, shape=(stack, inner))
            else:
                sent[BASE + pair.weight] = replace(spec, shape=(outer, inner))
        return as_control(sent) if updates else {}

    def outgoing(self, server: ServerState, client: int) -> Arrays:
        sent = {}
        for name, delta in server.base_deltas.items():
            if LEFT + name in server.memory:
                sent |= {side + name: server.memory[side + name] for side in (LEFT, RIGHT)}
            else:
                sent[BASE + name] = delta
        return server.weights | as_control(sent)

    def evaluated(self, server: ServerState, client: int) -> Arrays:
        return self.outgoing(server, client)

    def reference(self, sent: dict[str, Any], client: int) -> dict[str, Any]:
        return model_part(sent)

    def step(
        self, server: ServerState, joined: Arrays, updates: Sequence[Update], num_clients: int
    ) -> ServerState:
        bases, memory = {}, {}
        for pair in pairs(server.weights):
            name, old = pair.weight, server.base_deltas.get(pair.weight)
            new = self.residual(server, joined, updates, pair)
            left, right = (np.asarray(each, np.float32) for each in new)
            if old is not None and LEFT + name not in server.memory:
                bases[name] = old + product(left, right, server.scale)
                continue
            if old is not None:
                left = np.concatenate([server.memory[LEFT + name], left], axis=1)
                right = np.concatenate([server.memory[RIGHT + name], right])
            bases[name] = product(left, right, server.scale)
            if is_thin(len(right), len(left), right.shape[1]):
                memory |= {LEFT + name: left, RIGHT + name: right}
        return ServerState(self.adapters(server, joined), bases, memory, server.scale)

    def adapters(self, server: ServerState, joined: Arrays) -> Arrays:
        """The adapters after the round."""
        return joined

    def used(self, learner: Any, sent: Arrays) -> Arrays:
        extra, scale = control_part(sent), learner.task.lora_scale
        bases = {k.removeprefix(BASE): a for k, a in extra.items() if k.startswith(BASE)}
        for key in [key for key in extra if key.startswith(LEFT)]:
            name = key.removeprefix(LEFT)
            bases[name] = product(extra[key], extra[RIGHT + name], scale)
        learner.write_base(bases)
        return model_part(sent)

    def train(
        self, learner: Any, sent: Arrays, client: int, number: int, memory: Arrays
    ) -> Trained:
        weights, loss = learner.train(self.used(learner, sent), client, number)
        return Trained(weights, loss)


def is_thin(stack: int, outer: int, inner: int) -> bool:
    """Whether two factors have fewer numbers than their product.

    Examples
    --------
    >>> is_thin(8, 384, 384), is_thin(192, 384, 384)
    (True, False)
    """
    return stack * (outer + inner) < outer * inner
