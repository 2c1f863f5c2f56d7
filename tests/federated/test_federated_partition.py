"""Rows are dealt as the partition says, all of them, once, and what is held out trains nobody."""

import dataclasses

import numpy as np
import pytest
from flwr_datasets.partitioner import DirichletPartitioner
from small_tasks import rows

from datasets import Dataset
from workbench.federated import Dirichlet, FederatedTask, Iid, Natural, QuantitySkew, clients_of

TASK = FederatedTask(dataset=rows(each=100), num_clients=5, clients_per_round=2)
KINDS = [Iid(), Dirichlet(0.5), QuantitySkew(1.0)]


def dealt(partition, **values):
    return clients_of(dataclasses.replace(TASK, partition=partition, **values))


def mixtures(clients):
    """For each client, the share of its training rows from each site."""
    names = sorted({row["client"] for row in TASK.dataset})
    counts = [[sum(r["client"] == n for r in c.train) for n in names] for c in clients]
    return np.array([np.array(each) / sum(each) for each in counts])


@pytest.mark.parametrize("partition", KINDS, ids=str)
def test_every_row_is_dealt_once_and_held_out_rows_train_nobody(partition):
    clients = dealt(partition)
    train = [row["question"] for client in clients for row in client.train]
    held_out = [row["question"] for client in clients for row in client.held_out]
    whole = clients_of(dataclasses.replace(TASK, num_clients=4))
    assert sorted(train) == sorted(r["question"] for client in whole for r in client.train)
    assert set(train).isdisjoint(held_out)
    assert clients == dealt(partition)
    assert clients != dealt(partition, seed=1)


def test_natural_is_what_none_means():
    four = dataclasses.replace(TASK, num_clients=4)
    assert clients_of(dataclasses.replace(four, partition=Natural())) == clients_of(four)
    with pytest.raises(ValueError, match="a partition that cuts them"):
        dealt(Natural())


def test_iid_clients_are_alike():
    sizes = [len(client.train) for client in dealt(Iid())]
    assert max(sizes) - min(sizes) <= 2
    assert mixtures(dealt(Iid())) == pytest.approx(np.full((5, 4), 0.25), abs=0.15)


def test_a_small_alpha_skews_the_mixture():
    spread = [mixtures(dealt(Dirichlet(alpha))).std(axis=0).mean() for alpha in (0.3, 100.0)]
    assert spread[0] > 3 * spread[1]


def test_a_small_alpha_skews_the_sizes_and_not_the_mixture():
    sizes = [np.std([len(c.train) for c in dealt(QuantitySkew(a))]) for a in (0.3, 100.0)]
    assert sizes[0] > 3 * sizes[1]
    mixed, skewed = (
        mixtures(dealt(kind)).std(axis=0).mean() for kind in (QuantitySkew(2.0), Dirichlet(0.3))
    )
    assert mixed < skewed / 2


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_flower_deals_the_rows_and_each_split_in_proportion(kind):
    clients = dealt(kind)
    rows, held_out = (sum(len(part) for part in each) for each in zip(
        *((c.train, c.held_out) for c in clients), strict=True
    ))  # fmt: skip
    for client in clients:
        expected = len(client.train) * held_out / rows
        assert abs(len(client.held_out) - expected) <= 1 + len(client.sources)


def test_a_partition_is_what_flwr_datasets_makes_of_the_same_column():
    kind, seed = Dirichlet(0.5), 3
    columns = {"source": [row["client"] for row in TASK.dataset]}
    peer = DirichletPartitioner(
        5, "source", alpha=0.5, min_partition_size=0, shuffle=False, seed=seed
    )
    ours = kind.partitioner(5, seed)
    peer.dataset = ours.dataset = Dataset.from_dict(columns)
    sizes = [[len(p.load_partition(client)) for client in range(5)] for p in (peer, ours)]
    assert sizes[0] == sizes[1]
    assert len(set(sizes[0])) > 1


def test_more_clients_than_rows_are_refused():
    with pytest.raises(ValueError, match="400 rows, and a row is not cut in two"):
        dealt(Iid(), num_clients=401)


def test_shares_that_leave_a_client_too_little_are_refused():
    with pytest.raises(ValueError, match="rows to train on and needs 2"):
        dealt(QuantitySkew(0.001))


def test_rows_of_equal_features_and_other_labels_are_other_rows():
    given = [
        {"client": f"c{k}", "features": [float(i), 1.0], "label": (i + k) % 3}
        for k in range(3) for i in range(10)
    ]  # fmt: skip
    task = FederatedTask(
        model="linear", tune="head", dataset=[*given, *given], num_clients=2, clients_per_round=2,
        partition="iid",
    )  # fmt: skip
    dealt = [row for c in clients_of(task) for row in (*c.train, *c.held_out)]
    kept = {(tuple(row["features"]), row["label"]) for row in dealt}
    assert len(dealt) == len(kept) > 10
