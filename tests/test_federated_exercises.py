"""Federated exercises: the right answer passes, planted wrong ones do not, targets agree."""

from math import sqrt
from random import Random
from statistics import fmean, pstdev, stdev

import numpy as np
import pytest
import torch
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from graded import fresh, names_of, refused_with_hints

from workbench.exercises import federated
from workbench.exercises.checking import SEED
from workbench.federated.traffic import EXAMPLES, reply, unpack


def weighted(updates, rows):
    return sum(n * u for n, u in zip(rows, updates, strict=True)) / sum(rows)


def numbers(weights, rank):
    return sum(rank * (o + i) for o, i in weights)


def gains(before, after):
    return [one - other for one, other in zip(before, after, strict=True)]


def unpaired(before, after):
    return sqrt((stdev(before) ** 2 + stdev(after) ** 2) / len(before))


def gap(a, b):
    products = [y @ x for x, y in zip(a, b, strict=True)]
    return sum(products) / len(a) - (sum(b) / len(b)) @ (sum(a) / len(a))


#: check -> (the right answer, wrong ones).
ANSWERS = {
    "weighted_mean": (
        weighted,
        lambda updates, rows: torch.stack(updates).mean(0),
        lambda updates, rows: weighted(updates, rows) * sum(rows),
        lambda updates, rows: weighted(updates, [1 / n for n in rows]),
        lambda updates, rows: weighted(updates, [n**2 for n in rows]),
        lambda updates, rows: updates[rows.index(max(rows))],
        lambda updates, rows: torch.stack(updates).median(0).values,
        lambda updates, rows: weighted(updates, rows).flatten(),
    ),
    "adapter_bytes": (
        lambda weights, rank: 4 * numbers(weights, rank),
        numbers,
        lambda weights, rank: 4 * sum(o * i for o, i in weights),
        lambda weights, rank: 4 * rank * sum(i for _, i in weights),
        lambda weights, rank: 4 * rank * sum(o for o, _ in weights),
        lambda weights, rank: 8 * rank * sum(i for _, i in weights),
        lambda weights, rank: 4 * rank * sum(weights[0]),
        lambda weights, rank: 2 * numbers(weights, rank),
        lambda weights, rank: 4 * sum(o + i for o, i in weights),
    ),
    "paired_mean": (
        lambda one, other: (fmean(gains(one, other)), stdev(gains(one, other)) / sqrt(len(one))),
        lambda one, other: (fmean(gains(other, one)), stdev(gains(one, other)) / sqrt(len(one))),
        lambda one, other: (fmean(gains(one, other)), stdev(gains(one, other))),
        lambda one, other: (fmean(gains(one, other)), unpaired(one, other)),
        lambda one, other: (fmean(gains(one, other)), stdev(gains(one, other)) / len(one)),
        lambda one, other: (fmean(gains(one, other)), pstdev(gains(one, other)) / sqrt(len(one))),
        lambda one, other: fmean(gains(one, other)),
        lambda one, other: (stdev(gains(one, other)) / sqrt(len(one)), fmean(gains(one, other))),
    ),
    "factor_gap": (
        gap,
        lambda a, b: -gap(a, b),
        lambda a, b: sum(y @ x for x, y in zip(a, b, strict=True)) / len(a),
        lambda a, b: (sum(b) / len(b)) @ (sum(a) / len(a)),
        lambda a, b: gap(a, b).abs(),
        lambda a, b: torch.zeros(len(b[0]), a[0].shape[1], dtype=torch.float64),
        lambda a, b: gap(a, b).T,
        lambda a, b: float(gap(a, b).norm()),
    ),
}  # fmt: skip


def check(name):
    return fresh(name, federated)


def test_every_exercise_is_tried():
    assert set(ANSWERS) == names_of(federated)


@pytest.mark.parametrize("name", ANSWERS)
def test_the_right_answer_is_right(name):
    assert check(name)(ANSWERS[name][0])


def test_numpy_numbers_are_numbers():
    def size(weights, rank):
        return 4 * rank * np.sum(weights)

    def paired(before, after):
        falls = np.subtract(before, after)
        return falls.mean(), falls.std(ddof=1) / np.sqrt(len(falls))

    assert check("adapter_bytes")(size)
    assert check("paired_mean")(paired)


@pytest.mark.parametrize(
    ("name", "number"), [(name, i) for name in ANSWERS for i in range(1, len(ANSWERS[name]))]
)
def test_wrong_answers_are_refused_with_hints(name, number):
    refused_with_hints(check(name), ANSWERS[name][number])


@pytest.mark.parametrize(
    ("name", "number", "remark"),
    [
        ("weighted_mean", 1, "Every client counts the same there"),
        ("weighted_mean", 2, "not a mean"),
        ("weighted_mean", 3, "small clients count most"),
        ("adapter_bytes", 1, "bytes are asked for"),
        ("adapter_bytes", 2, "the whole weight"),
        ("adapter_bytes", 3, "One of the two factors"),
        ("adapter_bytes", 5, "wrong only where the model is smollm2-135m"),
        ("paired_mean", 1, "The sign"),
        ("paired_mean", 2, "not the error of the mean"),
        ("paired_mean", 3, "seeds come in pairs"),
        ("paired_mean", 5, "not by n - 1"),
        ("factor_gap", 1, "The other way round"),
        ("factor_gap", 2, "how far FedAvg is off it"),
        ("factor_gap", 3, "what FedAvg gets"),
    ],
)
def test_common_slips_are_named(name, number, remark):
    assert remark in check(name)(ANSWERS[name][number]).text


def test_the_weighted_mean_is_what_flower_computes():
    for case in federated._updates(Random(SEED)):
        records = [
            reply({"update": update.numpy()}, 1.0, rows)
            for update, rows in zip(*case.given, strict=True)
        ]
        joined = unpack(aggregate_arrayrecords(records, EXAMPLES))["update"]
        assert np.allclose(joined, case.expected.numpy(), rtol=0, atol=1e-12)


def test_the_gap_vanishes_where_it_should():
    for case in federated._factors(Random(SEED)):
        a, b = case.given
        assert case.expected.norm() > 0.1
        shared = [a[0]] * len(a)
        assert gap(shared, b).norm() < 1e-12  # with one A for all, nothing is lost
