"""A linear classifier as a federated task, by messages and by one batched step for all clients."""

import dataclasses

import numpy as np
import pytest
import torch
from small_tasks import linear_rows, linear_task

from workbench.federated import (
    History,
    Iid,
    compare_runs,
    digit_rows,
    embedded_rows,
    load_adapter,
    round_traffic,
    simulate,
    vectorised,
)
from workbench.federated.history import same_weights
from workbench.federated.learner import Learner


@pytest.fixture(scope="module")
def run():
    task = linear_task()
    return task, simulate(task, progress=False)


def test_it_learns_and_travels_as_any_other(run):
    task, history = run
    assert history.start.loss == pytest.approx(np.log(3))  # nothing is known of three classes
    assert history.rounds[-1].eval_loss < history.start.loss - 0.05
    sent = round_traffic(task)
    assert [r.uplink_bytes for r in history.rounds] == [sent.uplink_bytes] * 2
    assert [r.downlink_bytes for r in history.rounds] == [sent.downlink_bytes] * 2
    assert round_traffic(task, tune="full") == sent
    assert history.engine == "messages"


def test_a_step_is_that_of_softmax_regression():
    """One client, one step of SGD from zeros, against the gradient written out."""
    rows = linear_rows(1, each=4)
    task = linear_task(dataset=rows, num_clients=1, clients_per_round=1, optimizer="sgd", lr=0.5,
                       rounds=1, local_steps=1)  # fmt: skip
    learner = Learner(task)
    mine = [row for row in rows if row["split"] == "train"]
    x = np.array([row["features"] for row in mine])
    truth = np.eye(1 + max(row["label"] for row in rows))[[row["label"] for row in mine]]
    error = 1 / truth.shape[1] - truth  # softmax of zeros
    trained, _ = learner.train(learner.start(), 0, 1)
    assert trained["weight"] == pytest.approx(-0.5 * error.T @ x / len(mine), abs=1e-6)
    assert trained["bias"] == pytest.approx(-0.5 * error.mean(0), abs=1e-6)


def test_it_is_saved_and_opened_again(run, tmp_path):
    task, history = run
    path = history.save(tmp_path / "saved")
    again = History.load(path, task)
    assert same_weights(again.weights, history.weights)
    head = load_adapter(path)
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])
    expected = x.numpy() @ history.weights["weight"].T + history.weights["bias"]
    assert head(x).detach().numpy() == pytest.approx(expected, abs=1e-6)


def test_it_resumes_to_the_same_bits(run, tmp_path):
    task, history = run
    simulate(dataclasses.replace(task, rounds=1), run_dir=tmp_path, progress=False)
    resumed = simulate(task, run_dir=tmp_path, progress=False)
    assert same_weights(resumed.weights, history.weights)
    assert compare_runs([tmp_path]).table["rounds"][0] == 2


def close(one, other):
    assert one.weights.keys() == other.weights.keys()
    for name, array in one.weights.items():
        assert array == pytest.approx(other.weights[name], abs=1e-5)
    for mine, theirs in zip(one.rounds, other.rounds, strict=True):
        assert mine.train_loss == pytest.approx(theirs.train_loss, abs=1e-5)
        assert mine.trained == pytest.approx(theirs.trained, abs=1e-5)
        assert mine.failed == theirs.failed
        assert mine.eval_loss == pytest.approx(theirs.eval_loss, abs=1e-5)
        assert mine.evaluation.accuracy == theirs.evaluation.accuracy
        assert mine.evaluation.clients.keys() == theirs.evaluation.clients.keys()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "sgd", "lr": 0.3, "method": {"name": "fedavg", "weighting": "uniform"}},
        {"eval_examples": 3, "batch_size": 40, "seed": 5, "optimizer": "sgd", "lr": 0.3},
    ],
    ids=["adamw", "sgd, uniform", "few evaluated, whole batches"],
)
def test_all_clients_at_once_are_equal_to_rounding(changes):
    task = linear_task(**changes)
    at_once = simulate(task, engine="vectorised", progress=False)
    close(at_once, simulate(task, progress=False))
    assert at_once.engine == "vectorised"
    assert at_once.rounds[0].uplink_bytes == at_once.rounds[0].evaluation_bytes == 0


def test_what_is_too_large_is_refused_alike():
    rows = [row | ({"features": [900 * x for x in row["features"]]} if row["client"] == "00001"
                   else {}) for row in linear_rows()]  # fmt: skip
    task = linear_task(dataset=rows, optimizer="sgd", clients_per_round=4)
    both = [simulate(task, engine=e, progress=False) for e in ("vectorised", "in-process")]
    assert list(both[0].rounds[0].failed) == ["00001"]
    for mine, theirs in zip(*(each.rounds for each in both), strict=True):
        assert mine.failed.keys() == theirs.failed.keys()
        assert mine.trained == pytest.approx(theirs.trained, abs=1e-5)
    lost = dataclasses.replace(task, min_clients=4)
    with pytest.raises(RuntimeError, match=r"round 1: 3 valid updates.*00001: refused: norm"):
        simulate(lost, engine="vectorised", progress=False)


def test_the_saved_history_says_that_nothing_travelled(tmp_path):
    task = linear_task(rounds=1)
    made = simulate(task, engine="vectorised", progress=False)
    assert History.load(made.save(tmp_path / "at-once"), task).engine == "vectorised"


@pytest.mark.parametrize(
    "changes", [{"method": "fedprox"}, {"privacy": "local-dp"}, {"compression": "int8"}]
)
def test_what_it_would_not_compute_alike_is_refused(changes):
    with pytest.raises(ValueError, match="computes FedAvg of model='linear' alone"):
        simulate(linear_task(**changes), engine="vectorised", progress=False)


def test_rounds_are_not_kept_without_messages(tmp_path):
    with pytest.raises(ValueError, match="keeps no rounds"):
        simulate(linear_task(), engine="vectorised", run_dir=tmp_path)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"tune": "lora"}, "take tune='head'"),
        ({"dataset": "chatterbot"}, "rows with 'client'"),
        ({"dataset": [{"client": "a", "features": [1.0], "label": -1}]}, "row 0 of dataset"),
        ({"dataset": [{"client": "a", "features": [float("nan")], "label": 0}]}, "finite numbers"),
        ({"dataset": [*linear_rows(), {"client": "a", "features": [1.0], "label": 0}]}, "row 0"),
        ({"attack": "labelflip"}, "model='linear' has none"),
    ],
)
def test_what_is_no_linear_task_is_refused(changes, why):
    with pytest.raises(ValueError, match=why):
        linear_task(**changes)


def test_digits_are_shared_out_by_label():
    task = linear_task(
        dataset=digit_rows(), num_clients=5, partition=Iid(), rounds=1, batch_size=16
    )
    found = simulate(task, engine="vectorised", progress=False)
    assert len(found.weights["weight"]) == 10
    assert found.start.loss == pytest.approx(np.log(10), abs=1e-4)
    assert found.rounds[0].eval_loss < found.start.loss


def test_texts_become_the_frozen_encoders_vectors(tiny_encoder):
    texts = [{"client": c, "question": f"{c} {i}", "answer": "x"} for c in "ab" for i in range(3)]
    rows = embedded_rows(texts, model=tiny_encoder)
    assert [row["label"] for row in rows] == [0, 0, 0, 1, 1, 1]
    assert len(rows[0]["features"]) == 16
    assert np.linalg.norm(rows[0]["features"]) == pytest.approx(1, abs=1e-5)
    assert set(rows[0]) == {"client", "features", "label"}


def test_a_causal_model_gives_no_vectors(tiny_causal):
    with pytest.raises(ValueError, match="no encoder"):
        embedded_rows([{"client": "a", "question": "b"}], model=tiny_causal)


def test_batches_repeat_a_row_uncounted():
    task = linear_task()
    rows = vectorised.Rows.of([[row] * n for row, n in zip(task.dataset, (9, 3), strict=False)])
    places, sizes = vectorised.batches(task, 1, rows, np.array([0, 1]))
    assert places.shape == (2, 3, 6)
    assert sizes.tolist() == [6, 3]
    assert (places[1, :, 3:] == 9).all()
    assert sorted(places[1, 0, :3].tolist()) == [9, 10, 11]
