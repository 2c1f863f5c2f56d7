"""Bytes in closed form equal Flower's own count; updates that can't be used are refused."""

import dataclasses

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from workbench.federated import FederatedTask, round_traffic
from workbench.federated.lora import adapter_shapes, full_shapes, initial_adapter
from workbench.federated.methods.base import Update
from workbench.federated.models import load_base
from workbench.federated.traffic import (
    ARRAYS,
    MAX_EXAMPLES,
    METRICS,
    evaluation_fault,
    largest_norm,
    pack,
    reply,
    request,
    specs_of,
)
from workbench.federated.updates import Expected, RefusedError, change_norm, read_update

SENT = {"a": np.ones((3, 2), np.float32), "b": np.zeros((2, 1), np.float32)}


def record(**changes):
    """A valid update, but for what is changed; ``None`` leaves an array out."""
    arrays = {**SENT, **changes}
    return reply({name: a for name, a in arrays.items() if a is not None}, 0.5, 7)


def fault(content):
    """Why the server refuses a reply to ``SENT``."""
    expected = Expected(SENT, specs_of(SENT), stateful=False)
    try:
        read_update(FederatedTask(), content, expected, 0)
    except RefusedError as refused:
        return str(refused)
    return None


def update_norm(moved):
    return change_norm(Update(0, moved, 1, 0.0), SENT)


def counted(content):
    return sum(each.count_bytes() for each in content.values())


@pytest.mark.parametrize("rank", [1, 8])
@pytest.mark.parametrize("clients", [1, 3])
def test_the_closed_form_is_flowers_count(rank, clients):
    task = FederatedTask(lora_rank=rank, clients_per_round=clients)
    weights = initial_adapter(task)
    traffic = round_traffic(task)
    assert traffic.uplink_bytes == clients * counted(reply(weights, 0.5, 7))
    assert traffic.downlink_bytes == clients * counted(request(pack(weights), 3))


def test_the_closed_form_of_full_tuning_is_flowers_count():
    task = FederatedTask(clients_per_round=1)
    model = load_base("minilm").model
    weights = {name: w.detach().numpy() for name, w in model.named_parameters()}
    traffic = round_traffic(task, tune="full")
    assert traffic.uplink_bytes == counted(reply(weights, 0.5, 7))
    assert traffic.downlink_bytes == counted(request(pack(weights), 3))
    assert traffic.uplink_bytes > 50 * round_traffic(task).uplink_bytes


def test_a_run_counts_what_the_closed_form_says(history):
    for each in history.rounds:
        traffic = round_traffic(history.task)
        assert each.uplink_bytes == traffic.uplink_bytes
        assert each.downlink_bytes == traffic.downlink_bytes
        assert each.evaluation_bytes > 0


def test_there_is_no_closed_form_of_what_is_unknown():
    with pytest.raises(ValueError, match=r"tune='adapter'; .* a closed form for \['lora', 'head'"):
        round_traffic(FederatedTask(), tune="adapter")


def test_shapes_are_of_the_adapters_alone(task):
    shapes = adapter_shapes(task)
    assert all("lora_" in name for name in shapes)
    assert {min(shape) for shape in shapes.values()} == {task.lora_rank}
    assert not any("lora_" in name for name in full_shapes(task))


def test_the_start_is_the_pretrained_model(task):
    weights = initial_adapter(task)
    assert all(np.abs(w).max() > 0 for name, w in weights.items() if "lora_A" in name)
    assert all(np.abs(w).max() == 0 for name, w in weights.items() if "lora_B" in name)
    other = initial_adapter(dataclasses.replace(task, seed=4))
    assert any(not np.array_equal(weights[name], other[name]) for name in weights)


def test_a_valid_update_is_accepted():
    assert fault(record()) is None


UNUSABLE = {
    "nan": record(a=np.full((3, 2), np.nan, np.float32)),
    "inf": record(a=np.full((3, 2), np.inf, np.float32)),
    "wrong shape": record(a=np.ones((2, 3), np.float32)),
    "broadcasting shape": record(a=np.ones((1, 2), np.float32)),
    "0-d": record(a=np.array(1.0, np.float32)),
    "integers": record(a=np.ones((3, 2), np.int32)),
    "float64": record(a=np.ones((3, 2))),
    "missing": record(b=None),
    "unknown": record(c=np.ones((1, 1), np.float32)),
    "no arrays": RecordDict({METRICS: MetricRecord({"num-examples": 1})}),
    "config for arrays": RecordDict({ARRAYS: ConfigRecord({"a": 1})}),
    "no metrics": RecordDict({ARRAYS: pack(SENT)}),
    "no examples": reply(SENT, 0.5, 0),
    "negative examples": reply(SENT, 0.5, -3),
    "incredible examples": reply(SENT, 0.5, MAX_EXAMPLES + 1),
    "nan loss": reply(SENT, float("nan"), 7),
    "lying header": RecordDict(
        {
            ARRAYS: ArrayRecord(
                {
                    "a": Array("float32", (3, 2), "numpy.ndarray", Array(np.ones(1)).data),
                    "b": Array(SENT["b"]),
                }
            ),
            METRICS: MetricRecord({"num-examples": 7, "train_loss": 0.5}),
        }
    ),
    "not numpy": RecordDict(
        {
            ARRAYS: ArrayRecord(
                {
                    "a": Array("float32", (3, 2), "numpy.ndarray", b"no array"),
                    "b": Array(SENT["b"]),
                }
            ),
            METRICS: MetricRecord({"num-examples": 7, "train_loss": 0.5}),
        }
    ),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_update_that_cannot_be_used_is_refused(name):
    assert fault(UNUSABLE[name])


@pytest.mark.parametrize("examples", [2.5, [1, 2]])
def test_the_number_of_examples_is_a_whole_number(examples):
    metrics = MetricRecord({"num-examples": examples, "train_loss": 0.5})
    assert "whole number" in fault(RecordDict({ARRAYS: pack(SENT), METRICS: metrics}))


def test_other_metrics_are_refused():
    metrics = MetricRecord({"num-examples": 7, "train_loss": 0.5, "more": 1})
    assert "metrics" in fault(RecordDict({ARRAYS: pack(SENT), METRICS: metrics}))


def test_norms_are_of_the_change():
    moved = {"a": SENT["a"] + 3, "b": SENT["b"]}
    assert update_norm(moved) == pytest.approx(np.sqrt(6 * 9))
    assert update_norm(SENT) == 0


def test_the_largest_norm_is_ten_medians_or_what_the_task_says():
    task = FederatedTask()
    assert largest_norm([1.0, 2.0], task) == np.inf
    assert largest_norm([1.0, 2.0, 90.0], task) == 20.0
    assert largest_norm([1.0, 2.0], dataclasses.replace(task, max_update_norm=1.5)) == 1.5


@pytest.mark.parametrize(
    "metrics",
    [
        {"loss": 1.0},
        {"loss": float("nan"), "accuracy": 0.5, "predictions": 3},
        {"loss": 1.0, "accuracy": 0.5, "predictions": -3},
        {"loss": [1.0], "accuracy": 0.5, "predictions": 3},
    ],
)
def test_an_evaluation_that_cannot_be_used_is_refused(metrics):
    good = {"loss": 1.0, "accuracy": 0.5, "predictions": 3}
    assert evaluation_fault(RecordDict({METRICS: MetricRecord(good)})) is None
    assert evaluation_fault(RecordDict({METRICS: MetricRecord(metrics)}))
    assert evaluation_fault(RecordDict())


def test_a_round_of_nobody_has_no_traffic():
    with pytest.raises(ValueError, match=r"clients=\[99, -3\]"):
        round_traffic(FederatedTask(), clients=[0, 99, -3])
    with pytest.raises(ValueError, match="merged_updates=-5"):
        round_traffic(FederatedTask(method="flora"), merged_updates=-5)
