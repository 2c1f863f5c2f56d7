"""What a task refuses, and that it survives its way to the clients."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from small_tasks import linear_rows, linear_task, rows

from workbench.federated import FederatedTask, FedProx, LocalDP, clients_of

REFUSED = [
    ({"model": ""}, "name, a folder or an id"),
    ({"dataset": "imdb"}, "one of \\['chatterbot', 'sotu'\\]"),
    ({"dataset": []}, "0 rows"),
    ({"dataset": 7}, "list of dicts"),
    ({"dataset": {"client": "a"}}, "list of dicts"),
    ({"dataset": [{"client": "a", "text": {1}}]}, "JSON"),
    ({"dataset": [{"client": "a", "question": "b"}]}, "row 0 .* no \\['text'\\]"),
    ({"dataset": [{"question": "a", "answer": "b"}]}, "no \\['client'\\]"),
    ({"dataset": [{"client": "a", "question": "a", "answer": " "}]}, "no \\['answer'\\]"),
    ({"dataset": "sotu"}, "encoder"),
    ({"num_clients": 0}, "at least 1"),
    ({"rounds": True}, "whole number"),
    ({"clients_per_round": 9}, "at most all"),
    ({"min_clients": 5}, "no round could go on"),
    ({"rounds": 0}, "at least 1"),
    ({"local_steps": 0}, "at least 1"),
    ({"batch_size": 0}, "at least 1"),
    ({"threads": 0}, "at least 1"),
    ({"lora_rank": 0}, "at least 1"),
    ({"seed": -1}, "at least 0"),
    ({"eval_examples": 1}, "at least 2"),
    ({"lr": 0}, "finite number above 0"),
    ({"lr": float("nan")}, "finite number above 0"),
    ({"lora_scale": -1.0}, "finite number above 0"),
    ({"max_update_norm": float("inf")}, "finite number above 0"),
    ({"optimizer": "lion"}, "one of \\['adamw', 'sgd'\\]"),
    ({"tune": "all"}, "one of \\['lora', 'head'"),
    ({"method": "fedsgd"}, "method='fedsgd'; it is one of"),
    ({"privacy": "none"}, "or None"),
    ({"compression": {"name": "topk", "share": 1}}, "unexpected keyword"),
    ({"attack": "signflip", "clients_per_round": 9}, "at most all"),
    ({"eval_split": "train"}, "one of"),
]


@pytest.mark.parametrize(("values", "reason"), REFUSED, ids=lambda v: str(v)[:40])
def test_a_value_that_no_run_can_have_is_refused(values, reason):
    with pytest.raises(ValueError, match=reason):
        FederatedTask(**values)


def test_a_task_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FederatedTask().seed = 1


@pytest.mark.parametrize("data", ["chatterbot", rows()], ids=["named", "own"])
def test_a_task_survives_json(data):
    task = FederatedTask(dataset=data, num_clients=4, lr=0.1 + 0.2, max_update_norm=3.0,
                         method=FedProx(0.3), compression="topk", privacy=LocalDP())  # fmt: skip
    assert FederatedTask.from_json(task.to_json()) == task


def test_a_table_is_taken_as_rows():
    table = pd.DataFrame(rows()).assign(year=range(80))
    task = FederatedTask(dataset=table, num_clients=4)
    assert task.dataset[3]["year"] == 3
    assert len(task.dataset) == 80


def test_own_rows_stay_out_of_what_is_published():
    task = FederatedTask(dataset=rows(), num_clients=4)
    public = task.public_json()
    assert "silver" in task.to_json()
    assert "silver" not in public
    assert json.loads(public)["dataset"]["rows"] == 80
    with pytest.raises(ValueError, match="own data"):
        FederatedTask.from_json(public)


def test_the_learning_rate_is_tuned_by_model_and_optimizer():
    assert FederatedTask(lr=0.5).learning_rate == 0.5
    adamw, sgd = FederatedTask(), FederatedTask(optimizer="sgd")
    assert 0 < adamw.learning_rate < sgd.learning_rate
    assert FederatedTask(model="some/other").learning_rate > 0


def test_more_clients_than_sources_are_refused():
    with pytest.raises(ValueError, match=r"num_clients=5, but the data have 4 natural sources"):
        clients_of(FederatedTask(dataset=rows(), num_clients=5))


def test_fewer_clients_share_out_whole_sources_by_size():
    sizes = {"e": 30, "d": 20, "c": 15, "b": 10, "a": 5}
    data = [
        {"client": name, "question": f"{name} {i}?", "answer": f"{i}", "split": "train"}
        for name, size in sizes.items()
        for i in range(size)
    ]
    data += [{"client": "e", "question": "held out?", "answer": "yes", "split": "test"}]
    clients = clients_of(FederatedTask(dataset=data, num_clients=2, clients_per_round=1))
    dealt = sorted(client.sources for client in clients)
    assert dealt == [("d", "c", "a"), ("e", "b")]
    assert sum(len(client.train) for client in clients) == 80
    orders = {
        tuple(
            client.sources
            for client in clients_of(
                FederatedTask(dataset=data, num_clients=2, clients_per_round=1, seed=seed)
            )
        )
        for seed in range(8)
    }
    assert len(orders) == 2  # the seed decides which of them is the first


def test_own_rows_are_split_by_group_without_leaks():
    data = rows()
    data += [data[0], {**data[1], "question": f" {data[1]['question'].upper()} "}]  # duplicates
    data += [{**data[2], "client": "site 3", "answer": "another"}]  # the same question elsewhere
    task = FederatedTask(dataset=data, num_clients=4, seed=5)
    clients = clients_of(task)
    train = [row["question"].casefold() for client in clients for row in client.train]
    held_out = [row["question"].casefold() for client in clients for row in client.held_out]
    assert all(client.held_out for client in clients)
    assert set(train).isdisjoint(held_out)
    validation = clients_of(dataclasses.replace(task, eval_split="validation"))
    rest = [row["question"].casefold() for client in validation for row in client.held_out]
    assert set(rest).isdisjoint({*train, *held_out})
    assert len(train) + len(held_out) + len(rest) == 81
    assert clients == clients_of(task)


def test_a_group_is_held_out_whole():
    data = [
        {"client": f"{i % 2}", "address": f"address {i % 10}", "text": f"sentence {i}"}
        for i in range(60)
    ]
    task = FederatedTask(model="some/lm", dataset=data, num_clients=2, clients_per_round=1)
    for client in clients_of(task):
        held_out = {row["address"] for row in client.held_out}
        assert held_out
        assert held_out.isdisjoint(row["address"] for row in client.train)


def test_a_split_is_given_for_all_rows_or_for_none():
    data = rows()
    data[5]["split"] = "train"
    with pytest.raises(ValueError, match="all or none"):
        clients_of(FederatedTask(dataset=data, num_clients=4))


def test_a_client_without_enough_rows_is_refused_by_name():
    data = [*rows(), {"client": "small", "question": "one?", "answer": "one"}]
    with pytest.raises(ValueError, match=r"client 'small' has 1 rows.*fewer than 5 clients"):
        clients_of(FederatedTask(dataset=data, num_clients=5))


def test_data_without_held_out_rows_are_refused():
    data = [row | {"split": "train"} for row in rows()]
    with pytest.raises(ValueError, match="no client has a row in the split 'test'"):
        clients_of(FederatedTask(dataset=data, num_clients=4))


@pytest.mark.parametrize("name", ["chatterbot", "sotu"])
def test_the_projects_own_data_share_nothing_between_training_and_held_out(name):
    model = "minilm" if name == "chatterbot" else "smollm2-135m"
    clients = clients_of(FederatedTask(model=model, dataset=name))
    key = "question" if name == "chatterbot" else "address"
    train = {row[key] for client in clients for row in client.train}
    assert len(clients) == 8
    assert train.isdisjoint(row[key] for client in clients for row in client.held_out)


def test_what_a_table_lacks_is_missing_as_in_rows():
    """A table has NaN where a dict has nothing."""
    some = [r | ({"group": f"g {i % 3}"} if i < 20 else {}) for i, r in enumerate(rows())]
    task, same = (FederatedTask(dataset=data, num_clients=4) for data in (some, pd.DataFrame(some)))
    assert task == same
    half = [r | ({"split": "train"} if i < 20 else {}) for i, r in enumerate(rows())]
    with pytest.raises(ValueError, match="some rows of dataset have a 'split'"):
        clients_of(FederatedTask(dataset=pd.DataFrame(half), num_clients=4))
    for data, changes in ((rows(), {}), (linear_rows(), {"model": "linear", "tune": "head"})):
        odd = [r | {"split": "training"} for r in data]
        with pytest.raises(ValueError, match="row 0 of dataset has split='training'; it is one of"):
            FederatedTask(dataset=odd, num_clients=4, **changes)


def test_features_may_be_arrays_and_one_number_is_none():
    as_arrays = [r | {"features": np.array(r["features"])} for r in linear_rows()]
    assert linear_task(dataset=as_arrays) == linear_task()
    with pytest.raises(ValueError, match="row 0 of dataset needs 'client', 'features'"):
        linear_task(dataset=[r | {"features": 3.0} for r in linear_rows()])


def test_clients_of_one_name_are_told_apart():
    named = [*["a + b"] * 12, *["a"] * 6, *["b"] * 6]
    data = [r | {"client": name} for r, name in zip(linear_rows(), named, strict=False)]
    made = clients_of(linear_task(dataset=data, num_clients=2, clients_per_round=2))
    assert [client.name for client in made] == ["a + b", "a + b (2)"]


def test_clients_may_be_numbers_from_0_on():
    data = [{**row, "client": int(row["client"].split()[1])} for row in rows()]
    clients = clients_of(FederatedTask(dataset=data, num_clients=4))
    assert sorted(client.sources for client in clients) == [("0",), ("1",), ("2",), ("3",)]


@pytest.mark.parametrize("column", ["client", "question", "answer"])
@pytest.mark.parametrize("value", [None, float("nan"), " ", [], "\ud800", True])
def test_a_missing_value_is_no_data(column, value):
    data = rows()
    data[7][column] = value
    with pytest.raises(ValueError, match=rf"row 7 of dataset has no \['{column}'\]"):
        FederatedTask(dataset=data, num_clients=4)


def test_rows_are_dicts_with_the_same_columns():
    with pytest.raises(ValueError, match="row 1 of dataset is a tuple"):
        FederatedTask(dataset=[rows()[0], (1, 2)], num_clients=4)
    with pytest.raises(ValueError, match=r"row 80 of dataset has no \['answer', 'question'\]"):
        FederatedTask(dataset=[*rows(), {"client": "a", "text": "alone"}], num_clients=4)


@pytest.mark.parametrize(
    "change",
    [{"label": True}, {"label": 10**12}, {"label": 1.0}, {"features": [10**400] * 5},
     {"features": [float("inf")] * 5}, {"client": None}, {"client": float("nan")}],
    ids=str,
)  # fmt: skip
def test_a_linear_row_has_numbers_and_a_label(change):
    data = linear_rows()
    data[3] |= change
    with pytest.raises(ValueError, match="row 3 of dataset needs 'client', 'features'"):
        linear_task(dataset=data)
