"""FedAvg with every step as a hook: a method is a file that overrides a few of them.

A round goes: the server sends `outgoing`; a client trains in `train` and sends arrays like
`reference`; the server joins them (`join`) and moves on (`step`). Arrays named ``control/...`` are
not the model's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from workbench.federated.option import Option

Arrays = dict[str, np.ndarray]
#: Beginning of the names of arrays that travel beside the model's.
CONTROL = "control/"
TUNES = ("lora", "head", "prompt", "prefix", "full")


@dataclass(frozen=True)
class Update:
    """What the server makes of one client's valid reply: the arrays, as decoded."""

    client: int
    arrays: Arrays
    examples: int
    loss: float


@dataclass(frozen=True)
class ServerState:
    """What the server keeps from round to round.

    Parameters
    ----------
    weights : dict
        The model's trained arrays, by name.
    base_deltas : dict
        What was merged into the base, by the name of its weight.
    memory : dict
        The method's own arrays, such as moments.
    scale : float
        The task's ``lora_scale``: the model has ``scale`` times B A added to a weight.
    """

    weights: Arrays
    base_deltas: Arrays = field(default_factory=dict)
    memory: Arrays = field(default_factory=dict)
    scale: float = 1.0


@dataclass(frozen=True)
class Trained:
    """What a client has after its steps: arrays to send, mean loss [nat], what it keeps."""

    arrays: Arrays
    loss: float
    memory: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class Method(Option):
    """FedAvg, weighted by training rows; its subclasses say what they do otherwise."""

    family: ClassVar[str] = "method"
    #: Whether a client keeps arrays between rounds.
    stateful: ClassVar[bool] = False
    #: Whether a client uses a model of its own, not the server's.
    personal: ClassVar[bool] = False
    #: Which kinds of tuning it works with.
    tunes: ClassVar[tuple[str, ...]] = TUNES

    @property
    def passes(self) -> int:
        """Steps of the optimizer that a client makes for each local step of the task."""
        return 1

    # What travels. `weights` may be arrays or anything else that has a shape.

    def shared(self, weights: dict[str, Any], client: int) -> dict[str, Any]:
        """Those of the model's arrays that travel, both ways."""
        return weights

    def down(self, weights: dict[str, Any], client: int) -> dict[str, Any]:
        """What a client that trains gets, by shape; keep it like `outgoing`."""
        return self.shared(weights, client)

    def sends(self, weights: dict[str, Any], client: int) -> dict[str, Any]:
        """What a client sends, by shape; keep it like `reference`."""
        return self.down(weights, client)

    def merged(self, weights: dict[str, Any], updates: int) -> dict[str, Any]:
        """What a client gets beside `down`, by shape, after so many updates were merged."""
        return {}

    # The server's side.

    def start(self, weights: Arrays, num_clients: int) -> Arrays:
        """The method's memory before round 1."""
        return {}

    def outgoing(self, server: ServerState, client: int) -> Arrays:
        """What a client that trains gets."""
        return self.shared(server.weights, client)

    def evaluated(self, server: ServerState, client: int) -> Arrays:
        """What a client that evaluates gets."""
        return self.shared(server.weights, client)

    def reference(self, sent: dict[str, Any], client: int) -> dict[str, Any]:
        """Names and shapes of what a client sends, and what its arrays are changes of."""
        return sent

    def rows_weigh(self) -> bool:
        """Whether a client with more training rows counts more."""
        return True

    def join(self, updates: Sequence[Update], server: ServerState) -> Arrays:
        """The mean of the updates: ``sum n_k w_k / sum n_k``, by Flower's own code."""
        return mean(updates, by_rows=self.rows_weigh())

    def step(
        self, server: ServerState, joined: Arrays, updates: Sequence[Update], num_clients: int
    ) -> ServerState:
        """The server's state after the round: the joined arrays are the new model."""
        return ServerState(server.weights | model_part(joined), server.base_deltas, server.memory)

    # The client's side.

    def train(
        self, learner: Any, sent: Arrays, client: int, number: int, memory: Arrays
    ) -> Trained:
        """Make the local steps from what the server sent."""
        weights, loss = learner.train(sent, client, number)
        return Trained(weights, loss)

    def used(self, learner: Any, sent: Arrays) -> Arrays:
        """The model's arrays for what was sent; may change the learner's base."""
        return sent

    def own(self, sent: Arrays, memory: Arrays, start: Callable[[], Arrays]) -> Arrays:
        """The model that a client uses: what was sent, or its own; ``start`` makes the first."""
        return sent


def model_part(arrays: dict[str, Any]) -> dict[str, Any]:
    """Those arrays that are the model's own."""
    return {name: array for name, array in arrays.items() if not name.startswith(CONTROL)}


def control_part(arrays: dict[str, Any]) -> dict[str, Any]:
    """Those that travel beside the model's, by the names of the model's."""
    prefix = len(CONTROL)
    return {name[prefix:]: a for name, a in arrays.items() if name.startswith(CONTROL)}


def as_control(arrays: dict[str, Any]) -> dict[str, Any]:
    """Name arrays as such that travel beside the model's."""
    return {f"{CONTROL}{name}": array for name, array in arrays.items()}


def mean(updates: Sequence[Update], by_rows: bool) -> Arrays:
    """Flower's weighted mean, in the type of the arrays; the order of ``updates`` decides bits."""
    from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
    from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

    class Ready(Array):
        """An array that was read already; as bytes it is not needed."""

        def __init__(self, ready: np.ndarray):
            self.ready = ready

        def numpy(self) -> np.ndarray:
            return self.ready

    records = []
    for update in updates:
        arrays = ArrayRecord()
        for name, array in update.arrays.items():
            arrays[name] = Ready(array)
        metrics = MetricRecord({"weight": update.examples if by_rows else 1})
        records.append(RecordDict({"arrays": arrays, "metrics": metrics}))
    joined = aggregate_arrayrecords(records, "weight")
    return {name: array.numpy() for name, array in joined.items()}
