"""Each method against its formula, written out on a model of one array and quadratic losses."""

import numpy as np
import pytest
import torch

from workbench.federated import (
    Ditto,
    FedAdam,
    FedAvg,
    FederatedTask,
    FedProx,
    FedYogi,
    LocalHead,
    PFedMe,
    Scaffold,
)
from workbench.federated.learner import Learner
from workbench.federated.methods.base import ServerState, Update
from workbench.federated.objectives import Loss
from workbench.federated.partition import Client

LR, STEPS = 0.1, 3
TARGETS = {0: np.array([1.0, -2.0], np.float32), 1: np.array([3.0, 0.5], np.float32)}
START = {"w": np.array([0.5, 0.25], np.float32)}


class Quadratic(Learner):
    """Client k has the loss 1/2 ||w - target_k||^2, so the gradient w - target_k; plain SGD."""

    def __init__(self, method):
        options = {"optimizer": "sgd", "lr": LR, "local_steps": STEPS, "batch_size": 1}
        self.task = FederatedTask(method=method, **options)
        self.parameters = {"w": torch.nn.Parameter(torch.zeros(2))}
        self.model = self.tokenizer = None
        self.clients = [Client(str(k), (), ({"x": x},), ()) for k, x in TARGETS.items()]
        self.objective = lambda model, tokenizer, rows: Loss(
            0.5 * ((self.parameters["w"] - torch.from_numpy(rows[0]["x"])) ** 2).sum(), 1, 0
        )


def steps(w, gradient, count=STEPS):
    for _ in range(count):
        w = w - LR * gradient(w)
    return w


def near(found, expected):
    assert np.asarray(found) == pytest.approx(np.asarray(expected), abs=1e-6)


def train(method, client=0, sent=START, memory=None):
    return method.train(Quadratic(method), sent, client, 1, memory or {})


WEIGHTED = [(FedAvg(), (0.25, 0.75)), (FedAvg("uniform"), (0.5, 0.5))]


def updates_of(arrays, rows):
    pairs = enumerate(zip(arrays, rows, strict=True))
    return [Update(client, each, examples, 0.0) for client, (each, examples) in pairs]


@pytest.mark.parametrize(("method", "shares"), WEIGHTED, ids=["examples", "uniform"])
def test_fedavg_is_the_weighted_mean_of_plain_steps(method, shares):
    found = [train(method, client).arrays["w"] for client in (0, 1)]
    expected = [steps(START["w"], lambda w, x=x: w - x) for x in TARGETS.values()]
    near(found, expected)
    updates = updates_of([{"w": w} for w in found], (1, 3))
    server = ServerState(START)
    state = method.step(server, method.join(updates, server), updates, 2)
    near(state.weights["w"], shares[0] * expected[0] + shares[1] * expected[1])


def test_fedprox_pulls_towards_the_servers_model():
    x, w0 = TARGETS[1], START["w"]
    near(train(FedProx(2.0), 1).arrays["w"], steps(w0, lambda w: w - x + 2.0 * (w - w0)))
    near(train(FedProx(0.0), 1).arrays["w"], train(FedAvg(), 1).arrays["w"])


@pytest.mark.parametrize("kind", [FedAdam, FedYogi])
def test_adaptive_servers_keep_moments_without_bias_correction(kind):
    method = kind(server_lr=0.3, tau=0.01, beta1=0.9, beta2=0.8)
    state = ServerState(START, {}, method.start(START, 2))
    w, m, v = START["w"].astype(float), np.zeros(2), np.full(2, 0.01**2)
    for change in (np.array([0.5, -0.1]), np.array([0.01, 0.02])):
        joined = {"w": (state.weights["w"] + change).astype(np.float32)}
        state = method.step(state, joined, [], 2)
        m = 0.9 * m + 0.1 * change
        yogi = v - 0.2 * change**2 * np.sign(v - change**2)
        v = 0.8 * v + 0.2 * change**2 if kind is FedAdam else yogi
        w = w + 0.3 * m / (np.sqrt(v) + 0.01)
        near(state.weights["w"], w)
        near(state.memory["v/w"], v)


def test_scaffold_corrects_each_gradient_and_updates_both_control_variates():
    method, w0, x = Scaffold(), START["w"], TARGETS[0]
    c, mine = np.array([0.3, -0.2], np.float32), np.array([0.1, 0.4], np.float32)
    server = ServerState(START, {}, {"w": c})
    found = train(method, 0, method.outgoing(server, 0), {"w": mine})
    after = steps(w0, lambda w: w - x - mine + c)
    near(found.arrays["w"], after)
    option_two = mine - c + (w0 - after) / (STEPS * LR)
    near(found.memory["w"], option_two)
    near(found.arrays["control/w"], option_two - mine)
    updates = [Update(0, found.arrays, 5, 0.0)]
    state = method.step(server, method.join(updates, server), updates, num_clients=2)
    near(state.weights["w"], after)
    near(state.memory["w"], c + 0.5 * (option_two - mine))


def test_scaffold_counts_every_client_the_same():
    method, server = Scaffold(), ServerState(START, {}, {"w": np.zeros(2, np.float32)})
    values = [np.full(2, v, np.float32) for v in (1, 3)]
    updates = updates_of([{"w": v, "control/w": v} for v in values], (1, 99))
    state = method.step(server, method.join(updates, server), updates, num_clients=4)
    near(state.weights["w"], [2, 2])
    near(state.memory["w"], [1, 1])


def test_ditto_trains_a_personal_model_beside_the_common_one():
    method, w0, x = Ditto(0.5), START["w"], TARGETS[1]
    first = train(method, 1)
    near(first.arrays["w"], steps(w0, lambda w: w - x))
    mine = steps(w0, lambda v: v - x + 0.5 * (v - w0))
    near(first.memory["w"], mine)
    second = train(method, 1, START, first.memory)
    near(second.memory["w"], steps(mine, lambda v: v - x + 0.5 * (v - w0)))
    assert method.own(START, first.memory, dict) is first.memory
    assert method.own(START, {}, dict) is START


def test_pfedme_moves_the_centre_towards_the_personal_model():
    method, x, w = PFedMe(lam=2.0, eta=0.1, inner_steps=4), TARGETS[0], START["w"]
    found = train(method)
    for _ in range(STEPS):
        theta = steps(w, lambda v, w=w: v - x + 2.0 * (v - w), 4)
        w = w - 0.1 * 2.0 * (w - theta)
    near(found.arrays["w"], w)
    near(found.memory["w"], theta)


def test_local_heads_keep_the_last_block_at_home():
    method = LocalHead()
    names = [f"model.layer.{i}.q.lora_{f}.weight" for i in (0, 9, 10) for f in "AB"]
    weights = {name: np.full(1, i, np.float32) for i, name in enumerate(names)}
    shared = method.shared(weights, 0)
    assert list(shared) == names[:4]
    own = {name: np.full(1, 7, np.float32) for name in names[4:]}
    assert method.own(shared, own, dict) == shared | own
    first = method.own(shared, {}, lambda: weights)
    assert first == weights
    moved = {name: array + 1 for name, array in shared.items()}
    state = method.step(ServerState(weights), moved, [], 2)
    assert state.weights == weights | moved
