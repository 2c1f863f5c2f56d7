"""Attacks and defences in a run: what arrives is what the options say, and what comes of it."""

import dataclasses

import numpy as np
import pytest
from small_tasks import rows

from workbench.federated import (
    Backdoor,
    Bulyan,
    FederatedTask,
    Krum,
    LabelFlip,
    Median,
    MultiKrum,
    SignFlip,
    TrimmedMean,
    simulate,
)
from workbench.federated.learner import Learner
from workbench.federated.lora import initial_adapter

FLIP = SignFlip(clients=(0,), scale=5.0)


@pytest.fixture(scope="module")
def five(task):
    """Five clients, all in one round, the first of them dishonest."""
    sizes = {"num_clients": 5, "clients_per_round": 5, "rounds": 1}
    return dataclasses.replace(task, dataset=rows(5), attack=FLIP, **sizes)


@pytest.fixture(scope="module")
def changes(five):
    """What each client changes, computed without Flower; the first one's sign flipped."""
    learner, start = Learner(five), initial_adapter(five)
    made = [learner.train(start, client, 1)[0] for client in range(5)]
    honest = [{n: w[n].astype(np.float64) - start[n] for n in start} for w in made]
    return [{n: -5.0 * a for n, a in honest[0].items()}, *honest[1:]]


def expected(rule, changes, name):
    stacked = np.stack([change[name] for change in changes])
    if rule == Median():
        return np.median(stacked, axis=0)
    return np.sort(stacked, axis=0)[1:-1].mean(0)


@pytest.mark.parametrize("rule", [Median(), TrimmedMean(0.2)], ids=repr)
def test_a_run_joins_by_the_rule(five, changes, rule):
    history = simulate(dataclasses.replace(five, defence=rule), progress=False)
    start = initial_adapter(five)
    for name, array in history.weights.items():
        assert array.dtype == np.float32
        assert np.allclose(array - start[name], expected(rule, changes, name), rtol=0, atol=1e-6)


@pytest.mark.parametrize("rule", [Krum(1), MultiKrum(1, 1)], ids=repr)
def test_krum_takes_an_honest_client(five, changes, rule):
    history = simulate(dataclasses.replace(five, defence=rule), progress=False)
    start = initial_adapter(five)
    off = [
        max(np.abs(history.weights[n] - start[n] - change[n]).max() for n in start)
        for change in changes
    ]
    assert np.argmin(off) in range(1, 5)
    assert min(off) < 1e-6 < sorted(off)[1]


def test_without_a_defence_the_attacker_decides(five, changes):
    """Rows are equal in number, so the mean is uniform; most of it is the attacker's."""
    history, start = simulate(five, progress=False), initial_adapter(five)

    def flat(arrays):
        return np.concatenate([arrays[name].ravel() for name in start])

    joined = flat(history.weights) - flat(start)
    attacker = flat(changes[0])
    assert np.allclose(joined, np.mean([flat(c) for c in changes], axis=0), rtol=0, atol=1e-6)
    assert joined @ attacker > 0.5 * np.linalg.norm(joined) * np.linalg.norm(attacker)


@pytest.mark.parametrize("attack", [LabelFlip((1,)), Backdoor((1,), "cf", "boo")], ids=repr)
def test_only_dishonest_clients_poison_their_rows_and_always_the_same(five, attack):
    task = dataclasses.replace(five, attack=attack)
    clean = rows()
    assert attack.rows(clean, 0, task) is clean
    poisoned = attack.rows(clean, 1, task)
    assert poisoned != clean
    assert poisoned == attack.rows(clean, 1, task)
    again = dataclasses.replace(task, seed=task.seed + 1)
    assert poisoned != attack.rows(clean, 1, again)


def test_a_poisoned_client_trains_on_its_poisoned_rows(five):
    """The same weights as an honest client whose rows are poisoned beforehand."""
    task = dataclasses.replace(five, attack=Backdoor((1,), "cf", "boo", scale=2.0))
    learner, start = Learner(task), initial_adapter(task)
    poisoned, _ = learner.train(start, 1, 1)
    honest = Learner(dataclasses.replace(task, attack=None))
    plain, _ = honest.train(start, 1, 1)
    bad = task.attack.rows(honest.clients[1].train, 1, task)
    honest.clients[1] = dataclasses.replace(honest.clients[1], train=tuple(bad))
    again, _ = honest.train(start, 1, 1)
    assert all((poisoned[n] == again[n]).all() for n in start)
    assert any((poisoned[n] != plain[n]).any() for n in start)


def test_a_scaled_update_is_the_dishonest_clients_alone():
    delta = {"a": np.ones(2, np.float32)}
    boost = Backdoor((1,), "cf", "boo", scale=3.0)
    assert (boost.update(delta, 1)["a"] == 3).all()
    assert (FLIP.update(delta, 0)["a"] == -5).all()
    assert boost.update(delta, 0) is FLIP.update(delta, 1) is delta


REFUSED = [
    ({"defence": Krum(1)}, r"Krum with f=1 of 4 updates: it needs n >= 2f \+ 3 = 5"),
    ({"defence": MultiKrum(1, 5), "clients_per_round": 5}, "keep=5 of 5 updates"),
    ({"defence": Bulyan(1)}, r"Bulyan with f=1 of 4 updates: .* 4f \+ 3 = 7"),
    ({"defence": TrimmedMean(0.2)}, r"cuts off int\(0.8\) = 0"),
    ({"attack": LabelFlip((8,))}, "partition ids go from 0 to 7"),
    ({"attack": LabelFlip(), "dataset": "sotu", "model": "smollm2-135m"}, "LabelFlip: .* text"),
    ({"attack": Backdoor(), "dataset": rows(8, columns=("text",)), "model": "x"}, "running text"),
]


@pytest.mark.parametrize(("values", "reason"), REFUSED, ids=lambda v: str(v)[:40])
def test_a_task_that_cannot_be_defended_or_attacked_is_refused(values, reason):
    with pytest.raises(ValueError, match=reason):
        FederatedTask(**values)


def test_a_round_with_too_few_updates_left_ends_the_run(five, monkeypatch):
    train = Learner.train

    def broken(self, weights, client, *rest, **options):
        if client == 3:
            raise RuntimeError("gone")
        return train(self, weights, client, *rest, **options)

    monkeypatch.setattr(Learner, "train", broken)
    with pytest.raises(
        RuntimeError, match=r"round 1: with 4 .*Krum with f=1 of 4 .*gone.*Ask more"
    ):
        simulate(dataclasses.replace(five, defence=Krum(1)), progress=False)
