"""Thousands of bad replies: none is used, none stops the server, and none changes a bit."""

import dataclasses
import itertools

import bad_replies
import numpy as np
import pytest
from flwr.app import Message, MessageType
from flwr.clientapp import ClientApp
from small_tasks import rows

from workbench.federated import (
    CentralDP,
    FedAdam,
    FedAvg,
    FederatedTask,
    FedExLora,
    FlexLora,
    HetLora,
    Scaffold,
)
from workbench.federated.in_process import InProcessGrid, task_identity
from workbench.federated.joining import next_state
from workbench.federated.methods.base import CONTROL, ServerState
from workbench.federated.methods.factors import A, B
from workbench.federated.server_app import Server
from workbench.federated.traffic import EXAMPLES, STATE_ROUND, TRAIN_LOSS

#: Each round has 5 to 7 bad replies, so that the tasks have more than 10,000 together.
CLIENTS, ROUNDS, BAD = 8, 143, 10_000
#: Beside the kinds of bad content: no content, a client that raises, and a change that is too far.
NO_CONTENT, RAISES, FAR, FAR_CONTROL = "no content", "raises", "too far", "control too far"
TASKS = {
    "fedavg": {},
    "limit": {"max_update_norm": 1.0},
    "fedadam": {"method": FedAdam()},
    "scaffold": {"method": Scaffold()},
    "fedex": {"method": FedExLora()},
    "flex": {"method": FlexLora(ranks=(2, 1))},
    "het": {"method": HetLora(ranks=(2, 1))},
    "median": {"defence": "median"},
    "bf16": {"compression": "bf16"},
    "int8": {"compression": "int8"},
    "topk": {"compression": "topk"},
    "private": {"privacy": CentralDP(clip_norm=0.05), "method": FedAvg(weighting="uniform"),
                "max_update_norm": 1.0},
}  # fmt: skip


def task_of(options):
    return FederatedTask(
        model="none", dataset=rows(CLIENTS), num_clients=CLIENTS, clients_per_round=CLIENTS,
        lora_rank=2, **options,
    )  # fmt: skip


def state_of(task):
    draw = np.random.default_rng(9)
    shapes = {"q" + A: (2, 5), "q" + B: (4, 2)}
    weights = {name: draw.normal(size=s).astype(np.float32) for name, s in shapes.items()}
    return ServerState(weights, {}, task.method.start(weights, CLIENTS), task.lora_scale)


class Round:
    """One round of eight clients, of whom some are to send what can't be used."""

    def __init__(self, task, seed):
        self.task, self.state = task, state_of(task)
        self.draw = np.random.default_rng(seed)
        self.good = set(self.draw.permutation(CLIENTS)[: self.draw.integers(1, 4)].tolist())
        self.kinds = {}
        for client in range(CLIENTS):
            self.kinds[client] = "good" if client in self.good else self.kind()
        self.replies = {client: self.reply(client) for client in range(CLIENTS)}

    def kind(self):
        """A kind of badness; what is too far is told from the others, so they must be more."""
        kinds = [*bad_replies.KINDS, NO_CONTENT, RAISES, FAR, FAR_CONTROL]
        chosen = bad_replies.pick(self.draw, kinds)
        far = sum(kind in (FAR, FAR_CONTROL) for kind in self.kinds.values()) + 1
        outvoted = len(self.good) >= 2 and far < len(self.good)
        if chosen == FAR and not (outvoted or self.task.max_update_norm):
            return NO_CONTENT
        if chosen == FAR_CONTROL and not (outvoted and isinstance(self.task.method, Scaffold)):
            return NO_CONTENT
        return chosen

    def reply(self, client):
        kind, draw = self.kinds[client], self.draw
        if kind in (NO_CONTENT, RAISES):
            return kind
        method, state = self.task.method, self.state
        reference = method.reference(method.outgoing(state, client), client)
        small = {n: 0.01 * draw.normal(size=a.shape) for n, a in reference.items()}
        delta = {n: a.astype(reference[n].dtype) for n, a in small.items()}
        if kind in (FAR, FAR_CONTROL):
            far = [n for n in delta if n.startswith(CONTROL) == (kind == FAR_CONTROL)]
            factor = np.float32(10.0 ** draw.integers(5, 30))
            delta |= {name: delta[name] * factor for name in far}
        arrays = {n: np.asarray(reference[n] + delta[n]) for n in reference}
        if self.task.compression is not None:
            arrays = self.task.compression.encode(delta)
        metrics = {TRAIN_LOSS: draw.random(), EXAMPLES: int(draw.integers(1, 1000))}
        if self.task.method.stateful or getattr(self.task.compression, "stateful", False):
            metrics[STATE_ROUND] = 0
        make = bad_replies.KINDS.get(kind, lambda draw, *content: bad_replies.record(*content))
        return make(draw, arrays, metrics)

    def joined(self, clients):
        """The server's state after a round of these clients, whose updates it used, who failed."""
        app = ClientApp()
        app.train()(self.answer)
        grid = InProcessGrid(app, CLIENTS, {})
        server = Server(grid, self.task, "unused", keep=False)
        server.nodes = {client: client + 1 for client in range(CLIENTS)}
        server.names = {client: f"site {client}" for client in range(CLIENTS)}
        sent = {client: self.task.method.outgoing(self.state, client) for client in clients}
        answers = server.exchange(sent, 1, MessageType.TRAIN, {})
        valid, failed = server.accept(answers, sent)
        server.note_used(answers, valid, 1)
        state = next_state(self.task, self.state, valid, 1)
        return state, {update.client for update in valid}, failed

    def answer(self, message, context):
        reply = self.replies[context.node_id - 1]
        if reply == RAISES:
            raise MemoryError("no room")
        if reply == NO_CONTENT:
            raise OSError("gone")
        return Message(reply, reply_to=message)


def bits(state):
    parts = itertools.chain(*(part.items() for part in dataclasses.astuple(state)[:3]))
    return [(name, array.dtype, array.shape, array.tobytes()) for name, array in parts]


@pytest.mark.parametrize("name", TASKS)
def test_bad_replies_change_nothing(name):
    task, bad, first = task_of(TASKS[name]), 0, ROUNDS * list(TASKS).index(name)
    with task_identity():
        for seed in range(first, first + ROUNDS):
            trial = Round(task, seed)
            state, used, failed = trial.joined(range(CLIENTS))
            alone, _, none = trial.joined(sorted(trial.good))
            assert used == trial.good, {i: trial.kinds[i] for i in used ^ trial.good}
            assert len(failed) == CLIENTS - len(trial.good)
            assert not none
            assert bits(state) == bits(alone)
            bad += len(failed)
    assert bad > BAD / len(TASKS)
