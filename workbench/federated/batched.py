"""Several clients' LoRA in one step: ``simulate(task, batched=True)``.

The clients' batches go through the model behind each other; in each adapted layer a client's rows
meet its own A and B. So the base's large products are made once for all. What comes out is equal
to one client after another to rounding, not to the bit: sums have another order, and texts are
padded to the longest of all clients.
"""

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from flwr.app import Message, MessageType
from peft.tuners.lora import LoraLayer

from workbench.federated.client_app import PARTITION, TASK
from workbench.federated.in_process import InProcessGrid
from workbench.federated.learner import Learner, batches_of, learner_of, optimizer_of, torch_threads
from workbench.federated.linear import is_linear
from workbench.federated.lora import Weights
from workbench.federated.methods import FedAdam, FedAvg, FedYogi
from workbench.federated.task import FederatedTask
from workbench.federated.traffic import ARRAYS, CONFIG, ROUND, unpack

#: What `History.engine` says of such a run.
ENGINE = "batched"
#: Methods whose clients make plain steps of the optimizer.
PLAIN = (FedAvg, FedAdam, FedYogi)
#: Most clients in one step: more gain nothing and take memory.
MOST = 8


def check(task: FederatedTask) -> None:
    """Refuse a task whose clients can't train in one step."""
    if task.secure_aggregation is not None:
        raise ValueError(
            f"batched=True with {task.secure_aggregation!r}: its clients answer message by "
            "message. Leave one of both out."
        )
    if task.tune != "lora" or is_linear(task) or type(task.method) not in PLAIN:
        names = ", ".join(method.__name__ for method in PLAIN)
        raise ValueError(
            f"batched=True with model={task.model!r}, tune={task.tune!r} and {task.method!r}: it "
            f"trains LoRA of {names} only. Take batched=False."
        )


class BatchedGrid(InProcessGrid):
    """Lets the clients of a round train together when the first one is asked for its reply."""

    def __init__(self, *given):
        super().__init__(*given)
        # By round and client; None where it has to train alone.
        self._trained: dict[tuple[int, int], tuple[Weights, float] | None] = {}

    def _answer(self, message: Message) -> Message:
        if message.metadata.message_type != MessageType.TRAIN:
            return super()._answer(message)
        client = self._client(message)
        learner = learner_of(self._contexts[message.metadata.dst_node_id].run_config[TASK])
        number = message.content[CONFIG][ROUND]
        if (number, client) not in self._trained:
            together = [message, *self._waiting.values()][:MOST]
            sent = {self._client(each): unpack(each.content[ARRAYS]) for each in together}
            try:
                found = train_together(learner, sent, number)
            except Exception:  # one of them can't train: each by itself shows which
                found = dict.fromkeys(sent)
            self._trained = {(number, each): result for each, result in found.items()}
        if (trained := self._trained.pop((number, client))) is None:
            return super()._answer(message)
        learner.train = lambda *_: trained
        try:
            return super()._answer(message)
        finally:
            del learner.train

    def _client(self, message: Message) -> int:
        return int(self._contexts[message.metadata.dst_node_id].node_config[PARTITION])


def train_together(
    learner: Learner, sent: Mapping[int, Weights], number: int
) -> dict[int, tuple[Weights, float]]:
    """What `Learner.train` returns for each client, from common steps.

    Parameters
    ----------
    sent : dict
        Client -> the adapter that it starts from.
    number : int
        The round.
    """
    batches = {}
    for client in sent:
        rows, draw = learner.drawn_from(client, number)
        batches[client] = batches_of(rows, learner.task.batch_size, draw)
    firsts = {client: [next(each)] for client, each in batches.items()}
    alike: dict[int, list[int]] = {}
    for client, (first,) in firsts.items():
        alike.setdefault(len(first), []).append(client)  # a small client's batches are smaller
    results = {}
    for clients in alike.values():
        hands = [
            firsts[client] + [next(batches[client]) for _ in range(1, learner.task.local_steps)]
            for client in clients
        ]
        results |= dict(
            zip(clients, _steps(learner, [sent[c] for c in clients], hands), strict=True)
        )
    return results


def _steps(
    learner: Learner, sent: Sequence[Weights], hands: Sequence[Sequence[Sequence[dict]]]
) -> list[tuple[Weights, float]]:
    stacked = {
        name: torch.nn.Parameter(
            torch.stack([torch.from_numpy(weights[name]) for weights in sent]).to(parameter.device)
        )
        for name, parameter in learner.parameters.items()
    }
    optimizer, found = optimizer_of(learner.task, stacked.values()), []
    with torch_threads(learner.task.threads), adapters(learner, stacked):
        for batches in zip(*hands, strict=True):
            optimizer.zero_grad()
            losses = learner.objective.together(learner.model, learner.tokenizer, batches)
            means = torch.stack([loss.mean for loss in losses])
            means.sum().backward()  # each adapter is in its own client's loss only
            optimizer.step()
            found.append(means.detach().cpu().double().numpy())
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in stacked.items()}
    return [
        ({name: array[k].copy() for name, array in arrays.items()}, float(loss))
        for k, loss in enumerate(np.mean(found, axis=0))
    ]


@contextmanager
def adapters(learner: Learner, stacked: Mapping[str, torch.Tensor]):
    """Let the model's adapted layers use a stack of adapters, one for each part of the rows."""
    names = {id(parameter): name for name, parameter in learner.parameters.items()}
    layers = [each for each in learner.model.modules() if isinstance(each, LoraLayer)]
    for layer in layers:
        (adapter,) = layer.lora_A
        down, up = (
            stacked[names[id(part[adapter].weight)]] for part in (layer.lora_A, layer.lora_B)
        )
        layer.forward = partial(_adapted, layer, down, up, layer.scaling[adapter])
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _adapted(
    layer: LoraLayer, down: torch.Tensor, up: torch.Tensor, scale: float, x: torch.Tensor
) -> torch.Tensor:
    """``W x + s B_k A_k x`` for the rows of each client k, which are behind each other."""
    plain = layer.base_layer(x)
    mine = x.reshape(len(down), -1, x.shape[-1])
    return plain + (scale * (mine @ down.mT) @ up.mT).reshape(plain.shape)
