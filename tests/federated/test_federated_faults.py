"""A client that fails, or sends what can't be used, is left out by name; the round goes on."""

import dataclasses
import logging
import re
import time
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import MetricRecord, RecordDict
from small_tasks import linear_rows, linear_task

from workbench.federated import TopK, server_app, simulate, simulation, waiting
from workbench.federated.history import same_weights
from workbench.federated.in_process import InProcessGrid
from workbench.federated.learner import Learner
from workbench.federated.partition import clients_of
from workbench.federated.traffic import METRICS, evaluation_fault, usual_limit


def break_client(monkeypatch, which, how):
    """Let client ``which`` answer a training request with ``how(weights)``."""
    train = Learner.train

    def broken(self, weights, client, number):
        if client == which:
            return how(weights)
        return train(self, weights, client, number)

    monkeypatch.setattr(Learner, "train", broken)


def crash(weights):
    raise ValueError("the disk is full")


def changed(change):
    return lambda weights: ({name: change(array) for name, array in weights.items()}, 0.5)


FAULTS = {
    "raises": (crash, "ValueError: the disk is full"),
    "nan": (changed(lambda a: a * np.nan), "refused: .* not finite"),
    "wrong shape": (changed(lambda a: a.T.copy()), "refused: .*float32\\[.*, not float32"),
    "broadcasting": (changed(lambda a: a[:1]), "refused: .*float32\\[1, "),
    "float64": (changed(lambda a: a.astype(np.float64)), "refused: .*float64"),
    "too far": (changed(lambda a: a + 1e4), "refused: norm .* is above"),
    "loss": (lambda weights: (weights, float("nan")), "refused: train_loss"),
}


@pytest.fixture(scope="module")
def everyone(task):
    """All four clients in one round, so that three are left when one fails."""
    return dataclasses.replace(task, rounds=1, clients_per_round=4)


@pytest.mark.parametrize("name", FAULTS)
def test_the_round_goes_on_without_the_client(name, everyone, monkeypatch, caplog):
    how, reason = FAULTS[name]
    break_client(monkeypatch, 2, how)
    culprit = clients_of(everyone)[2].name
    with caplog.at_level(logging.WARNING):
        history = simulate(everyone, progress=False)
    (done,) = history.rounds
    assert list(done.failed) == [culprit]
    assert len(done.trained) == 3
    assert np.all([np.isfinite(array).all() for array in history.weights.values()])
    assert re.search(reason, done.failed[culprit])
    assert culprit in caplog.text


def test_who_is_left_decides_alone(everyone, monkeypatch):
    """The same weights, whatever the fault of the one who is left out."""
    runs = []
    for how in (crash, FAULTS["nan"][0]):
        with monkeypatch.context() as patch:
            break_client(patch, 2, how)
            runs.append(simulate(everyone, progress=False))
    assert same_weights(runs[0].weights, runs[1].weights)


def test_too_few_updates_end_the_run_by_name(everyone, monkeypatch, tmp_path):
    break_client(monkeypatch, 2, crash)
    strict = dataclasses.replace(everyone, min_clients=4)
    with pytest.raises(RuntimeError, match=r"round 1: 3 valid updates, min_clients is 4.*disk"):
        simulate(strict, progress=False, run_dir=tmp_path)


def test_one_valid_update_is_enough_by_default(everyone, monkeypatch):
    train = Learner.train

    def broken(self, weights, client, number):
        if client:
            raise RuntimeError("gone")
        return train(self, weights, client, number)

    monkeypatch.setattr(Learner, "train", broken)
    (done,) = simulate(everyone, progress=False).rounds
    assert len(done.failed) == 3


def test_a_norm_above_the_tasks_own_limit_is_refused(everyone):
    with pytest.raises(RuntimeError, match=r"norm .* is above 1e-09"):
        simulate(dataclasses.replace(everyone, max_update_norm=1e-9), progress=False)


def test_a_failed_evaluation_is_reported(everyone, monkeypatch):
    evaluate = Learner.evaluate

    def broken(self, weights, client):
        if client == 1:
            raise RuntimeError("no memory")
        good = evaluate(self, weights, client)
        return good | {"loss": float("nan")} if client == 2 else good

    monkeypatch.setattr(Learner, "evaluate", broken)
    history = simulate(everyone, progress=False)
    names = [client.name for client in clients_of(everyone)]
    for evaluation in (history.start, history.rounds[0].evaluation):
        assert set(evaluation.clients) == {names[0], names[3]}
        assert evaluation.failed[names[1]] == "RuntimeError: no memory"
        assert "finite" in evaluation.failed[names[2]]
        assert np.isfinite(evaluation.loss)
    failed = history.clients_to_frame().set_index(["round", "client"])["failed"]
    assert failed[0, names[1]] == failed[1, names[1]] == "RuntimeError: no memory"


def test_a_client_that_cannot_start_ends_the_run(everyone, monkeypatch):
    def broken(self, task):
        raise OSError("no such model")

    monkeypatch.setattr(Learner, "__init__", broken)
    with pytest.raises(RuntimeError, match="could not start: OSError: no such model"):
        simulate(everyone, progress=False)


class Clock:
    """Time passes only while the server waits: a slow machine makes nobody late."""

    perf_counter = staticmethod(time.perf_counter)

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def test_clients_that_never_join_end_the_run(everyone, monkeypatch):
    monkeypatch.setattr(waiting, "time", Clock())
    monkeypatch.setattr(server_app, "JOIN_TIMEOUT_S", 0.2)
    monkeypatch.setattr(InProcessGrid, "get_node_ids", lambda self: [1])
    with pytest.raises(TimeoutError, match=r"1 of 4 clients joined in 0.2 s"):
        simulate(everyone, progress=False)


def test_a_round_waits_for_lost_clients_and_names_them(everyone, monkeypatch):
    monkeypatch.setattr(waiting, "time", Clock())
    monkeypatch.setattr(server_app, "JOIN_TIMEOUT_S", 0.2)
    seen = iter([[1, 2, 3, 4], [2], [2]])
    monkeypatch.setattr(InProcessGrid, "get_node_ids", lambda self: next(seen))
    two = dataclasses.replace(everyone, min_clients=2)
    lost = r"round 1: site 0, site 2, site 3 did not return in 0.2 s, and min_clients is 2"
    with pytest.raises(TimeoutError, match=lost):
        simulate(two, progress=False)


def test_a_deployment_s_grid_may_fail_to_send_and_hide_who_failed():
    """As Flower's HttpGrid: it goes through messages twice; an error comes from the SuperLink."""

    class Grid(InProcessGrid):
        def __init__(self):
            pass

        def push_messages(self, messages):
            assert [*messages] == [*messages]
            return ["a", None]

        def pull_messages(self, ids):
            assert ids == ["a"]
            return [SimpleNamespace(metadata=SimpleNamespace(reply_to_message_id="a"))]

    messages = (SimpleNamespace(metadata=SimpleNamespace(dst_node_id=i)) for i in (7, 8))
    assert [node for node, _ in waiting.replies_to(Grid(), messages, 1.0)] == [7]


def test_in_a_simulation_no_client_is_late(everyone, monkeypatch):
    """However long the clients take that answer before it."""
    clock = Clock()
    monkeypatch.setattr(waiting, "time", clock)
    steps = Learner.steps

    def slow(*given, **more):
        clock.now += 1500.0
        return steps(*given, **more)

    monkeypatch.setattr(Learner, "steps", slow)
    (done,) = simulate(everyone, progress=False).rounds
    assert done.failed == {}


def test_no_change_makes_no_other_too_large():
    """The median of the norms may be 0."""
    assert usual_limit([0.0, 0.0, 0.0, 0.2]) == float("inf")
    assert usual_limit([0.1, 0.1, 0.1, 9.0]) < 9.0


@pytest.mark.parametrize(
    "numbers",
    [
        {"loss": 1.0, "accuracy": 0.5, "predictions": 2**70},
        {"loss": 1.0, "accuracy": 0.5, "predictions": 1e308},
        {"loss": 1.0, "accuracy": 7.5, "predictions": 3},
        {"loss": float("nan"), "accuracy": 0.5, "predictions": 3},
    ],
)
def test_an_evaluation_that_cannot_be_is_refused(numbers):
    assert evaluation_fault(RecordDict({METRICS: MetricRecord(numbers)}))


def test_a_step_that_breaks_does_not_stay_with_its_client():
    """One row of huge features makes some batches' updates infinite; the next round is whole."""
    rows = linear_rows()
    place = next(i for i, r in enumerate(rows) if r["client"] == "00001" and r["split"] == "train")
    rows[place] = rows[place] | {"features": [1e300] * 5}
    failed = []
    for feedback in (False, True):
        task = linear_task(
            dataset=rows, clients_per_round=4, rounds=8, local_steps=1, optimizer="sgd",
            batch_size=4, compression=TopK(0.5, error_feedback=feedback),
        )  # fmt: skip
        history = simulate(task, progress=False)
        failed.append([r.number for r in history.rounds if "00001" in r.failed])
    assert failed[0] == failed[1]
    assert 0 < len(failed[0]) < 8


def test_a_client_that_does_not_answer_in_time_is_left_out(everyone, monkeypatch):
    monkeypatch.setattr(waiting, "time", Clock())
    monkeypatch.setattr(simulation, "ROUND_TIMEOUT_S", 0.3)
    honest = InProcessGrid.pull_messages

    def silent(self, ids):
        replies = honest(self, ids)
        lost = [r for r in replies if r.metadata.src_node_id == 2]
        return [] if lost and lost[0].metadata.message_type == "train" else replies

    monkeypatch.setattr(InProcessGrid, "pull_messages", silent)
    (done,) = simulate(everyone, progress=False).rounds
    assert list(done.failed.values()) == ["no answer within 0.3 s"]


def test_a_late_clients_control_variates_count_where_the_task_has_a_limit_of_its_own():
    """SCAFFOLD's newcomer tells all of its gradient, others only what has changed of theirs."""
    draw, rows = np.random.default_rng(4), []
    for client in range(10):
        truth = draw.normal(size=(3, 4)) * 2
        for x in draw.normal(size=(12, 4)).round(3):
            row = {"client": f"c{client}", "features": x.tolist()}
            rows.append(row | {"label": int((truth @ x).argmax())})
    given = {"method": "scaffold", "optimizer": "sgd", "lr": 0.3, "rounds": 40, "batch_size": 1000,
             "num_clients": 10, "clients_per_round": 5, "seed": 1}  # fmt: skip
    history = simulate(linear_task(dataset=rows, max_update_norm=1e6, **given), progress=False)
    assert not any(each.failed for each in history.rounds)
