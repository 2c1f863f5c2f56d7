"""What each way of joining adapters computes, beside the exact mean of B A; its bytes; resume."""

import dataclasses

import numpy as np
import pytest

from workbench.federated import (
    FedAvg,
    FederatedTask,
    FedExLora,
    FfaLora,
    FlexLora,
    Flora,
    HetLora,
    load_adapter,
    round_traffic,
    simulate,
)
from workbench.federated.history import same_weights
from workbench.federated.learner import Learner
from workbench.federated.lora import adapter_parameters
from workbench.federated.methods.base import ServerState, Update
from workbench.federated.partition import sample
from workbench.federated.traffic import specs_of

A, B = (f"base_model.model.q.lora_{factor}.weight" for factor in "AB")
OUTER, INNER, RANK, SCALE, ROWS = 8, 9, 2, 2.0, (1, 3, 4)
SHARES = [1 / 8, 3 / 8, 4 / 8]


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def server_of(rank=RANK):
    weights = {A: normal(99, rank, INNER), B: np.zeros((OUTER, rank), np.float32)}
    return ServerState(weights, scale=SCALE)


def updates_of(ranks=(RANK,) * 3, seed=0):
    return [
        Update(k, {A: normal(seed + k, r, INNER), B: normal(seed + k + 10, OUTER, r)}, n, 0.0)
        for k, (r, n) in enumerate(zip(ranks, ROWS, strict=True))
    ]


def exact(updates):
    return sum(p * u.arrays[B] @ u.arrays[A] for p, u in zip(SHARES, updates, strict=True))


def after(method, server, updates):
    return method.step(server, method.join(updates, server), updates, len(updates))


def change(server):
    """What is added to the pretrained weight: the base's part, and the adapter's."""
    return server.base_deltas.get("q.weight", 0) + SCALE * server.weights[B] @ server.weights[A]


def near(found, expected):
    assert found == pytest.approx(expected, abs=1e-5)


def test_fedavg_is_the_product_of_the_means_and_not_the_mean_of_products():
    updates = updates_of()
    mean_a, mean_b = (
        sum(p * u.arrays[name] for p, u in zip(SHARES, updates, strict=True)) for name in (A, B)
    )
    found = change(after(FedAvg(), server_of(), updates))
    near(found, SCALE * mean_b @ mean_a)
    assert np.abs(found - SCALE * exact(updates)).max() > 0.5


def test_fedex_adds_what_is_missing_to_the_base():
    updates = updates_of()
    averaged, found = (after(m, server_of(), updates) for m in (FedAvg(), FedExLora()))
    near(change(found), SCALE * exact(updates))
    assert same_weights(found.weights, averaged.weights)


def test_flora_puts_all_of_it_into_the_base_and_begins_again():
    updates = updates_of()
    found = after(Flora(), server_of(), updates)
    near(found.base_deltas["q.weight"], SCALE * exact(updates))
    assert same_weights(found.weights, server_of().weights)


@pytest.mark.parametrize("method", [FedExLora(), Flora()], ids=lambda m: m.label())
def test_what_was_merged_adds_up_and_a_client_that_missed_it_gets_it_all(method):
    """First as factors, then as the dense change; the client's base is the server's to the bit."""

    class Model:
        task = FederatedTask(lora_scale=SCALE)

        def write_base(self, deltas):
            self.deltas = deltas

    server, model, kinds = server_of(1), Model(), []
    for seed in (0, 100):
        updates = updates_of(ranks=(1,) * 3, seed=seed)
        total = server.base_deltas.get("q.weight", 0) + SCALE * exact(updates)
        server = after(method, dataclasses.replace(server, weights=server_of(1).weights), updates)
        near(change(server), total)
        sent = method.outgoing(server, 0)
        kinds.append(len(sent))
        assert same_weights(method.used(model, sent), server.weights)
        assert same_weights(model.deltas, server.base_deltas)
        shapes = method.merged(specs_of(server_of(1).weights), len(kinds) * 3)
        assert {n: s.shape for n, s in shapes.items()} == {
            n: a.shape for n, a in sent.items() if n not in server.weights
        }
    assert kinds == [
        4,
        3,
    ]  # two factors: 3 (8 + 9) < 72 numbers; then one dense change: 6 (8 + 9) > 72


def test_ffa_is_exact_since_all_have_one_a():
    method, server = FfaLora(), server_of()
    updates = [dataclasses.replace(u, arrays={B: u.arrays[B]}) for u in updates_of()]
    whole = [dataclasses.replace(u, arrays=server.weights | u.arrays) for u in updates]
    near(change(after(method, server, updates)), SCALE * exact(whole))
    assert list(method.shared(server.weights, 0)) == [B]


def test_flex_gives_each_client_the_nearest_of_its_rank():
    method, updates = FlexLora(ranks=(3, 2, 1)), updates_of((3, 2, 1))
    found = after(method, server_of(3), updates)
    u, s, vt = np.linalg.svd(exact(updates))
    for client, rank in enumerate(method.ranks):
        mine = method.shared(found.weights, client)
        assert mine[A].shape == (rank, INNER)
        near(mine[B] @ mine[A], (u[:, :rank] * s[:rank]) @ vt[:rank])
    only = after(method, server_of(3), [dataclasses.replace(updates[2], examples=1)])
    near(only.weights[B] @ only.weights[A], updates[2].arrays[B] @ updates[2].arrays[A])


def test_het_pads_and_weighs_by_the_norm():
    method, updates = HetLora(ranks=(3, 2, 1)), updates_of((3, 2, 1))
    found = after(method, server_of(3), updates)
    norms = [np.linalg.norm(u.arrays[B] @ u.arrays[A]) for u in updates]
    a, b = np.zeros((3, INNER)), np.zeros((OUTER, 3))
    for rank, norm, update in zip((3, 2, 1), norms, updates, strict=True):
        a[:rank] += norm / sum(norms) * update.arrays[A]
        b[:, :rank] += norm / sum(norms) * update.arrays[B]
    near(found.weights[A], a)
    near(found.weights[B], b)
    assert np.abs(b @ a - exact(updates)).max() > 0.1
    silent = [dataclasses.replace(u, arrays=u.arrays | {B: 0 * u.arrays[B]}) for u in updates]
    near(after(method, server_of(3), silent).weights[A][2], updates[0].arrays[A][2] / 3)


def test_the_largest_rank_is_the_tasks():
    with pytest.raises(ValueError, match=r"lora_rank=8; .* Take lora_rank=4"):
        FederatedTask(method=FlexLora(ranks=(4, 2)))


METHODS = [FedExLora(), Flora(), FlexLora(ranks=(2, 1)), HetLora(ranks=(2, 1)), FfaLora()]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.label())
def test_a_run_counts_its_bytes_and_resumes_to_the_bit(method, task, tmp_path):
    """The third round's clients get the base of two rounds, as it was in the checkpoint."""
    task = dataclasses.replace(task, method=method, rounds=3, eval_examples=4)
    done = simulate(task, progress=False)
    simulate(dataclasses.replace(task, rounds=2), run_dir=tmp_path, progress=False)
    again = simulate(task, run_dir=tmp_path, progress=False)
    assert same_weights(again.weights, done.weights)
    assert same_weights(again.base_deltas, done.base_deltas)
    assert [r.evaluation for r in again.rounds] == [r.evaluation for r in done.rounds]
    assert not any(each.failed for each in done.rounds)
    for each in done.rounds:
        chosen, before = sample(task, each.number), (each.number - 1) * task.clients_per_round
        traffic = round_traffic(task, clients=chosen, merged_updates=before)
        assert (each.uplink_bytes, each.downlink_bytes) == (
            traffic.uplink_bytes,
            traffic.downlink_bytes,
        )


def test_the_saved_model_has_what_was_merged(task, tmp_path):
    """A plain peft model computes what the run's last evaluation did."""
    task = dataclasses.replace(task, method="flora", rounds=1, eval_examples=4)
    history = simulate(task, progress=False)
    learner = Learner(task)
    learner.model = load_adapter(history.save(tmp_path / "saved")).eval()
    learner.parameters = {}
    parameters = adapter_parameters(learner.model)
    assert not parameters  # nothing of it is trained any more
    name = learner.clients[0].name
    found = learner.evaluate({}, 0)
    assert found == history.rounds[0].evaluation.clients[name]
    assert found != history.start.clients[name]


def test_slots_beyond_a_clients_rank_stay_zero(task):
    """Their gradients are exactly 0, so what a client sends is all that it has learnt."""
    method = FlexLora(ranks=(2, 1))
    learner = Learner(dataclasses.replace(task, method=method))
    sent = method.shared(learner.start(), 1)
    weights, _ = learner.train(method.used(learner, sent), 1, 1)
    for name, array in weights.items():
        rest = array[1:] if "lora_A" in name else array[:, 1:]
        assert not rest.any()


def test_ffa_leaves_a_alone(task):
    method = FfaLora()
    learner = Learner(dataclasses.replace(task, method=method))
    start = learner.start()
    sent = method.train(learner, method.shared(start, 0), 0, 1, {}).arrays
    assert all(name.endswith("lora_B.weight") and array.any() for name, array in sent.items())
    for name, parameter in learner.parameters.items():
        if "lora_A" in name:
            assert np.array_equal(parameter.detach().numpy(), start[name])
