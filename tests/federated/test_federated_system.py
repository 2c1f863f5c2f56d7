"""The simulated clock: seconds as written out here, who is left out, the same after a resume."""

import dataclasses
import math

import numpy as np
import pytest

from workbench.federated import (
    CentralDP,
    FederatedTask,
    Scaffold,
    System,
    round_traffic,
    simulate,
    simulated_clock,
)
from workbench.federated.clock import fewest, simulated_round, speed
from workbench.federated.deploy import run_deployment
from workbench.federated.history import same_weights
from workbench.federated.learner import Learner
from workbench.federated.methods import METHODS
from workbench.federated.methods.base import ServerState
from workbench.federated.options.compression import Spec
from workbench.federated.partition import absent, clients_of, sample

CLOCK = {"step_s": 2.0, "uplink_bytes_per_s": 1e4, "downlink_bytes_per_s": 4e4}


def with_system(task, **values):
    return dataclasses.replace(task, system=System(**CLOCK | values))


@pytest.fixture(scope="module")
def rough(task):
    """Clients that are late, drop out or can't be asked, under a method that keeps state."""
    values = {"speed_sigma": 1.0, "deadline_s": 12.0, "dropout": 0.2, "availability": 0.7}
    return dataclasses.replace(with_system(task, **values), method=Scaffold(), rounds=6, seed=10)


@pytest.fixture(scope="module")
def rough_history(rough):
    return simulate(rough, progress=False)


def test_a_clock_alone_changes_seconds_only(task, history):
    timed = with_system(task)
    found = simulate(timed, progress=False)
    assert same_weights(found.weights, history.weights)
    traffic = round_traffic(timed, clients=[0])
    for each in found.rounds:
        due = [
            traffic.downlink_bytes / 4e4 + 2 * 2.0 / speed(timed, c) + traffic.uplink_bytes / 1e4
            for c in sample(timed, each.number)
        ]
        assert each.simulated_s == pytest.approx(max(due))
    assert {each.simulated_s for each in history.rounds} == {None}


def test_a_run_leaves_out_whom_the_clock_leaves_out(rough, rough_history):
    clock, names = simulated_clock(rough), [client.name for client in clients_of(rough)]
    assert set(clock.outcome) == {"used", "late", "dropped out", "not available", "not asked"}
    for each in rough_history.rounds:
        mine = clock[clock["round"] == each.number]
        used = mine[mine.outcome == "used"].client.tolist()
        asked = mine[mine.due_s.notna()].client.tolist()
        assert list(each.trained) == [names[c] for c in used]
        assert {n: why.split(" (")[0] for n, why in each.failed.items()} == {
            names[c]: mine.outcome[mine.client == c].item() for c in asked if c not in used
        }
        assert each.uplink_bytes == round_traffic(rough, clients=used).uplink_bytes
        assert each.downlink_bytes == round_traffic(rough, clients=asked).downlink_bytes
        missing = len(used) < len(asked)
        assert each.simulated_s == (12.0 if missing else mine.due_s.max()) == mine.round_s.iloc[0]
        assert each.restarted == {}


def test_the_clock_goes_on_after_a_resume(rough, rough_history, tmp_path):
    simulate(dataclasses.replace(rough, rounds=3), run_dir=tmp_path, progress=False)
    resumed = simulate(rough, run_dir=tmp_path, progress=False)
    assert same_weights(resumed.weights, rough_history.weights)
    for ours, theirs in zip(resumed.rounds, rough_history.rounds, strict=True):
        assert (ours.simulated_s, ours.failed) == (theirs.simulated_s, theirs.failed)
    assert resumed.to_frame()["simulated_s"].count() == 6


def test_a_round_with_too_few_fails_by_name(task):
    late = with_system(task, deadline_s=1e-3)
    with pytest.raises(RuntimeError, match=r"0 valid updates.*site \d: late \(simulated\)"):
        simulate(late, progress=False)
    away = with_system(task, availability=1e-9)
    with pytest.raises(RuntimeError, match=r"min_clients is 1. site 0: not available"):
        simulate(away, progress=False)
    with pytest.raises(RuntimeError, match="min_clients is 3"):
        simulate(dataclasses.replace(with_system(task, dropout=0.6), min_clients=3), progress=False)


def test_a_poisson_sample_may_be_small_and_others_may_not():
    task = FederatedTask(min_clients=2)
    assert fewest(task, [1]) == 2
    privacy = CentralDP(1.0, 1.0, 1e-5, sampling="poisson")
    assert fewest(dataclasses.replace(task, privacy=privacy), [1]) == 1


def test_draws_have_the_chances_that_were_asked_for():
    """Within four standard errors of 2,000 clients."""
    system = System(speed_sigma=0.8, dropout=0.2, availability=0.6)
    task = FederatedTask(num_clients=2000, clients_per_round=2000, system=system)
    logs = np.log([speed(task, client) for client in range(2000)])
    assert abs(logs.mean()) < 4 * 0.8 / math.sqrt(2000)
    assert logs.std() == pytest.approx(0.8, rel=4 / math.sqrt(4000))
    done = simulated_round(task, 1, {"a": Spec((2, 2))})
    error = 4 * math.sqrt(0.25 / 2000)
    assert 1 - len(done.asked) / 2000 == pytest.approx(0.4, abs=error)
    assert len(done.left_out) / len(done.asked) == pytest.approx(0.2, abs=2 * error)
    assert sorted([*done.asked, *done.absent]) == list(range(2000))
    assert absent(task, 1) != absent(task, 2)


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.__name__)
def test_the_clock_counts_the_steps_that_a_method_makes(kind, task, monkeypatch):
    ranks = {"ranks": (task.lora_rank,)} if hasattr(kind, "ranks") else {}
    timed = dataclasses.replace(task, method=kind(**ranks))
    learner, made = Learner(timed), []

    def steps(self, rows, count, draw, optimizer, gradient=None):
        made.append(count)
        return [0.0] * count

    monkeypatch.setattr(Learner, "steps", steps)
    start = learner.start()
    server = ServerState(start, {}, timed.method.start(start, task.num_clients))
    timed.method.train(learner, timed.method.outgoing(server, 0), 0, 1, {})
    assert sum(made) == timed.local_steps * timed.method.passes


def test_a_deployment_has_no_simulated_clock(task, tmp_path):
    with pytest.raises(ValueError, match="take system=None here"):
        run_deployment(with_system(task), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_system_refuses_what_it_cannot_time_or_account_for(task):
    with pytest.raises(ValueError, match="Give step_s"):
        dataclasses.replace(task, system=System())
    with pytest.raises(ValueError, match="no simulated clock"):
        simulated_clock(task)
    privacy = CentralDP(1.0, 1.0, 1e-5, sampling="fixed")
    with pytest.raises(ValueError, match="fewer clients than are accounted for"):
        FederatedTask(privacy=privacy, system=System(availability=0.5))
    batches = FederatedTask(batch_size=16, system=System())
    assert batches.system.seconds_per_step(batches) == 2 * System().seconds_per_step(
        FederatedTask(batch_size=8)
    )
