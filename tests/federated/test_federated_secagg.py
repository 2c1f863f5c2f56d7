"""SecAgg+: the mean is the plain one to the quantisation step, and only the sum can be read."""

import dataclasses
import random

import numpy as np
import pytest

from workbench.federated import (
    FederatedTask,
    FfaLora,
    SecAggPlus,
    round_traffic,
    simulate,
)
from workbench.federated.deploy import run_deployment
from workbench.federated.history import same_weights
from workbench.federated.learner import Learner
from workbench.federated.masking import _numpys_state_kept
from workbench.federated.partition import clients_of
from workbench.federated.secagg import secure_mean
from workbench.federated.secagg_protocol import COLLECT, SETUP, SHARE_KEYS, UNMASK
from workbench.federated.traffic import masked_bytes, metrics_fault, specs_of

DRAW = np.random.default_rng(0)
#: Of five clients, arrays of other order than their names'; and how many rows each has.
CHANGES = [
    {"b": DRAW.normal(0, 0.1, (3, 4)).astype(np.float32), "a": DRAW.normal(0, 0.1, 400)}
    for _ in range(5)
]
ROWS = [11, 20, 30, 40, 53]
COARSE = SecAggPlus(clipping_range=1.0, bits=8)


def flat(arrays):
    return np.concatenate([arrays[name].astype(float).ravel() for name in sorted(arrays)])


def exact_mean(clients, weights):
    """Written out; shares no code with the library."""
    total = sum(weights[i] * flat(CHANGES[i]) for i in clients)
    return total / sum(weights[i] for i in clients)


@pytest.fixture(scope="module")
def uniform():
    return secure_mean(CHANGES, COARSE)


def test_the_mean_is_the_plain_one_to_one_step(uniform):
    off = np.abs(flat(uniform.mean) - exact_mean(range(5), [1] * 5))
    assert COARSE.error_bound([1] * 5) == COARSE.step == 2.0 / 256
    assert off.max() < COARSE.step
    assert off.max() > 0.2 * COARSE.step  # rounding is there: the bound is not idle
    assert {k: a.shape for k, a in uniform.mean.items()} == {"a": (400,), "b": (3, 4)}


def test_rows_weigh_to_the_bound():
    """The client with the most rows is not in the sum; its rows are still the largest weight."""
    done = secure_mean(CHANGES, COARSE, weights=ROWS, lost=[4])
    assert done.levels == 8 * 256 > 1.5 * 53 / 11 * 256  # finer, for unequal weights
    bound = COARSE.error_bound(ROWS[:4], done.levels, most=53)
    off = np.abs(flat(done.mean) - exact_mean(range(4), ROWS)).max()
    assert 0.1 * bound < off < bound < COARSE.step


def test_levels_are_as_fine_as_32_bits_allow():
    assert SecAggPlus(bits=20).levels(5) == 2**20
    assert SecAggPlus(bits=20).levels(5, spread=1000) == 2**29
    assert SecAggPlus(bits=29).levels(7, spread=3) == 2**29
    coarse = SecAggPlus(bits=4, clipping_range=1.0)
    assert coarse.error_bound([1, 50], 16) > 2 * coarse.step  # what finer levels are for
    assert coarse.error_bound([1, 50], coarse.levels(2, 50)) < coarse.step


def test_what_the_server_receives_tells_nothing_but_the_sum(uniform):
    """A masked change looks like any numbers; the sum of all is what was to be known."""
    for client, change in enumerate(CHANGES):
        seen = flat(uniform.masked[client])
        assert abs(np.corrcoef(seen, flat(change))[0, 1]) < 0.2  # 4 standard errors of 412 numbers
        assert np.abs(np.quantile(seen / 2**32, [0.25, 0.5, 0.75]) - [0.25, 0.5, 0.75]).max() < 0.1
    assert np.corrcoef(flat(uniform.mean), exact_mean(range(5), [1] * 5))[0, 1] > 0.99
    again = secure_mean(CHANGES, COARSE)
    assert same_weights(again.mean, uniform.mean)  # masks cancel to the last unit
    assert not np.array_equal(again.masked[0]["a"], uniform.masked[0]["a"])


LOST = {
    "before keys": ({0: SETUP}, [1, 2, 3, 4]),
    "before shares": ({0: SHARE_KEYS}, [1, 2, 3, 4]),
    "before the change": ({0: COLLECT, 3: COLLECT}, [1, 2, 4]),
    "one by one": ({0: SHARE_KEYS, 4: COLLECT}, [1, 2, 3]),
    "after the change": ({2: UNMASK}, [0, 1, 2, 3, 4]),
}


@pytest.mark.parametrize("name", LOST)
def test_the_sum_is_of_those_that_were_not_lost(name):
    lost, left = LOST[name]
    done = secure_mean(CHANGES, lost=lost)
    assert sorted(set(range(5)) - set(done.failed)) == left
    assert np.abs(flat(done.mean) - exact_mean(left, [1] * 5)).max() < SecAggPlus().step
    assert all("ConnectionError: lost" in why for why in done.failed.values())


@pytest.mark.parametrize("stage", [SETUP, COLLECT, UNMASK])
def test_too_few_are_an_error_by_name(stage):
    """Flower's workflow itself ends without a word."""
    lost = dict.fromkeys([0, 2, 3], stage)
    with pytest.raises(RuntimeError, match=r"of 5 clients 3 must .*client 0: .*lost.*client 3"):
        secure_mean(CHANGES, lost=lost)


def test_large_changes_are_clipped_number_by_number():
    far = [{"a": np.array([30.0, -0.5])}, {"a": np.array([0.5, -0.5])}]
    done = secure_mean(far, COARSE)
    assert np.abs(done.mean["a"] - [0.75, -0.5]).max() < COARSE.step


def test_bytes_are_the_closed_form(uniform):
    clear = 8 + len("train_loss") + 8 + len("num-examples")
    assert uniform.uplink_bytes == 5 * (masked_bytes(specs_of(CHANGES[0])) + clear)
    assert uniform.key_bytes > 0


def test_a_sum_that_does_not_fit_or_hides_nobody_is_refused():
    with pytest.raises(ValueError, match=r"4 x 2\^30.*bits of at most 29"):
        SecAggPlus(bits=30).check_clients(4)
    SecAggPlus(bits=29).check_clients(4)
    with pytest.raises(ValueError, match="the sum of one update is that update"):
        FederatedTask(num_clients=3, clients_per_round=1, secure_aggregation="secaggplus")
    assert [SecAggPlus(0.6).needed(n) for n in (2, 5, 6, 10)] == [2, 3, 4, 6]


def test_others_random_numbers_stay_as_they_were():
    """Flower rounds by NumPy's global numbers."""
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    with _numpys_state_kept():
        np.random.rand()  # noqa: NPY002
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.fixture(scope="module")
def secured(task):
    """One round of all four clients, by rows: plain, and summed by the protocol."""
    plain = dataclasses.replace(task, rounds=1, clients_per_round=4, min_clients=2)
    return plain, dataclasses.replace(plain, secure_aggregation="secagg+")


def test_a_task_learns_the_same_to_the_step(secured):
    plain, secure = (simulate(each, progress=False) for each in secured)
    step = secure.task.secure_aggregation.step
    off = np.abs(flat(secure.weights) - flat(plain.weights))
    assert 0 < off.max() < step
    assert secure.rounds[0].trained == pytest.approx(plain.rounds[0].trained)
    traffic = round_traffic(secure.task)
    assert secure.rounds[0].uplink_bytes == traffic.uplink_bytes
    assert secure.rounds[0].downlink_bytes == traffic.downlink_bytes
    assert traffic.downlink_bytes == plain.rounds[0].downlink_bytes
    assert secure.rounds[0].key_bytes > 0 == plain.rounds[0].key_bytes


def test_two_rounds_of_b_alone_give_the_same_bits_again(secured):
    values = {"method": FfaLora(), "rounds": 2, "eval_examples": 2}
    first, again = (
        simulate(dataclasses.replace(secured[1], **values), progress=False) for _ in range(2)
    )
    assert same_weights(first.weights, again.weights)
    assert all(np.isfinite(a).all() for a in first.weights.values())


@pytest.fixture
def broken(monkeypatch):
    """Clients that crash, and one that sends what is not finite."""
    train = Learner.train

    def run(task, crashing, mad=None):
        def instead(self, weights, client, number):
            if client in crashing:
                raise OSError("the disk is full")
            trained, loss = train(self, weights, client, number)
            if client == mad:
                trained = {name: a * np.nan for name, a in trained.items()}
            return trained, loss

        monkeypatch.setattr(Learner, "train", instead)
        return simulate(task, progress=False)

    return run


def test_a_round_goes_on_without_the_lost(secured, broken):
    """What a server would refuse, an honest client refuses itself: nobody can look at it."""
    (done,) = broken(secured[1], [2]).rounds
    names = [client.name for client in clients_of(secured[1])]
    assert list(done.failed) == [names[2]]
    assert "the disk is full" in done.failed[names[2]]
    with pytest.raises(RuntimeError, match=rf"round 1: .*{names[0]}: .*not finite.*{names[2]}"):
        broken(dataclasses.replace(secured[1], secure_aggregation=SecAggPlus(0.75)), [2], mad=0)


def test_a_deployment_refuses_it(secured, tmp_path):
    with pytest.raises(ValueError, match=r"runs in simulate\(\) only"):
        run_deployment(secured[1], tmp_path / "run")


def test_flowers_masks_come_from_32_bits():
    """Why this is a demonstration: keys that differ give one mask if their words' XOR is equal."""
    from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

    key = random.Random(0).randbytes(32)
    other = key[4:] + key[:4]
    one, two = (pseudo_rand_gen(each, 2**32, [(5,)])[0] for each in (key, other))
    assert key != other
    assert np.array_equal(one, two)


def test_what_comes_in_the_clear_is_looked_at(uniform):
    assert metrics_fault(uniform.replies[0]["metrics"]) is None
