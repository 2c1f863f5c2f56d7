"""The gap of averaging factors: against dense products, in closed form, and on real updates."""

import dataclasses

import numpy as np
import pytest

from workbench.federated import FedAvg, FedExLora, FfaLora, FlexLora, Flora, HetLora, averaging
from workbench.federated.averaging import ONE
from workbench.federated.history import same_weights
from workbench.federated.learner import Learner
from workbench.federated.methods.base import Update
from workbench.federated.methods.factors import pairs

SHAPE = (12, 9)


def rng(seed=0):
    return np.random.default_rng(seed)


def dense(updates, pair=ONE):
    """The exact mean of B A, and what the means of A and B make of it."""
    rows = sum(u.examples for u in updates)
    a, b, exact = (
        sum(u.examples / rows * term(u) for u in updates)
        for term in (
            lambda u: u.arrays[pair.a],
            lambda u: u.arrays[pair.b],
            lambda u: u.arrays[pair.b] @ u.arrays[pair.a],
        )
    )
    return exact, b @ a


def test_the_gap_is_that_of_dense_products():
    drawn = averaging.drawn_factors(rng(), 2, 0.7, 4, SHAPE)
    updates = [dataclasses.replace(u, examples=n) for u, n in zip(drawn, (1, 5, 2, 9), strict=True)]
    exact, apart = dense(updates)
    gap = averaging.factor_gap(updates)
    assert gap.exact == pytest.approx(np.linalg.norm(exact))
    assert gap.missed == pytest.approx(np.linalg.norm(exact - apart))
    assert gap.relative == pytest.approx(gap.missed / gap.exact)


@pytest.mark.parametrize(("rank", "spread", "clients"), [(1, 0.5, 2), (3, 1.0, 8), (6, 2.0, 3)])
def test_the_closed_form_is_what_draws_have_on_average(rank, spread, clients):
    draw, shape = rng(1), (30, 40)
    gaps = [
        averaging.factor_gap(averaging.drawn_factors(draw, rank, spread, clients, shape))
        for _ in range(60)
    ]
    expected = averaging.expected_gap(rank, spread, clients, shape)
    for name in ("exact", "missed"):
        mean_square = np.mean([getattr(gap, name) ** 2 for gap in gaps])
        assert np.sqrt(mean_square) == pytest.approx(getattr(expected, name), rel=0.04)


def test_clients_that_differ_in_one_factor_miss_nothing():
    updates = averaging.drawn_factors(rng(), 2, 1.0, 4, SHAPE)
    same_a = [
        dataclasses.replace(u, arrays=u.arrays | {ONE.a: updates[0].arrays[ONE.a]}) for u in updates
    ]
    assert averaging.factor_gap(same_a).relative < 1e-7
    assert averaging.factor_gap(updates).relative > 0.1


@pytest.mark.parametrize("updates", [[], [Update(0, {"head": np.ones(2)}, 1, 0.0)]])
def test_nothing_to_average_is_refused(updates):
    with pytest.raises(ValueError, match="nothing to average"):
        averaging.factor_gap(updates)


def test_the_exact_mean_has_more_ranks_than_an_adapter():
    updates = averaging.drawn_factors(rng(), 2, 1.0, 3, SHAPE)
    values = averaging.singular_values(updates, ONE)
    assert values == pytest.approx(np.linalg.svd(dense(updates)[0])[1][:6])
    assert values[5] > 0.1


METHODS = [FedExLora(), Flora(), FfaLora(), HetLora(ranks=(2, 1)), FlexLora(ranks=(2, 1))]


@pytest.fixture(scope="module")
def learners(task):
    """One model that all methods' clients are trained with."""
    learner = Learner(task)

    def of(method):
        learner.task = dataclasses.replace(task, method=method)
        return learner

    return of


def test_one_step_from_the_start_misses_nothing_and_later_ones_do(learners):
    """B begins at 0, so the first step leaves A where it is."""
    learner = learners("fedavg")
    steps = averaging.updates_by_step(learner, range(2))
    assert list(steps) == [1, 2]
    first, last = (averaging.factor_gap(updates) for updates in steps.values())
    assert first.exact > 0
    assert first.relative < 1e-7 < 1e-4 < last.relative
    sent = averaging.first_updates(learner, range(2))
    for found, expected in zip(steps[2], sent, strict=True):
        assert found.examples == expected.examples
        assert same_weights(found.arrays, expected.arrays)


def test_real_updates_are_joined_exactly_by_those_that_say_so(learners):
    learner = learners("fedavg")
    gaps = averaging.first_gaps(learner, [FedAvg(), *METHODS])
    assert learner.task.method == FedAvg()
    for method, gap in gaps.items():
        inexact = method in ("FedAvg", "HetLora", "FlexLora")
        assert (gap.relative > 1e-4) == inexact, method
        assert gap.relative > 1e-4 or gap.relative < 1e-5, method


def test_the_exact_change_is_the_mean_of_products(learners):
    learner = learners(HetLora(ranks=(2, 1)))
    server, updates = averaging.start_of(learner), averaging.first_updates(learner, range(2))
    for name, change in averaging.exact_change(updates, server.weights, 2.0).items():
        pair = next(pair for pair in pairs(server.weights) if pair.weight == name)
        assert change == pytest.approx(2.0 * dense_of(updates, pair), abs=1e-7)


def dense_of(updates, pair):
    rows = sum(u.examples for u in updates)
    return sum(u.examples / rows * u.arrays[pair.b] @ u.arrays[pair.a] for u in updates)
