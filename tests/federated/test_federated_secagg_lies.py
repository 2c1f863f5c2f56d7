"""SecAgg+ where clients lie or changes can't be summed: refused in words, or not needed."""

import io

import numpy as np
import pytest
from flwr.common import bytes_to_ndarray, ndarray_to_bytes

from workbench.federated import (
    SecAggPlus,
    secagg,
)
from workbench.federated.masking import PROTOCOL, stage_of
from workbench.federated.secagg import secure_mean
from workbench.federated.secagg_protocol import COLLECT, SETUP, SHARE_KEYS, UNMASK

FOUR = [{"w": np.full(2, x)} for x in (0.1, 0.2, 0.6, 0.9)]


def let_lie(monkeypatch, stage, key, lie):
    """Let client 0 put ``lie(what it would say)`` under a key of its answer in a stage."""
    honest = secagg.masked_reply

    def lying(message, context, train, option):
        now, said = stage_of(message), honest(message, context, train, option)
        if context.node_id == 1 and now == stage:
            said.content[PROTOCOL][key] = lie(said.content[PROTOCOL][key])
        return said

    monkeypatch.setattr(secagg, "masked_reply", lying)


ZIPPED = io.BytesIO()
np.savez(ZIPPED, a=np.ones(2))
#: What one client says in a stage in place of what it was asked for.
LIES = [
    (COLLECT, "masked_params", [b"PK\x03\x04junk", b"x"]),
    (COLLECT, "masked_params", [ZIPPED.getvalue()] * 2),
    (COLLECT, "masked_params", [b"\x93NUMPY\x01\x00\x10\x00{'descr': '<i8'(", b"x"]),
    (SETUP, "pk1", "text"),
    (SETUP, "pk1", b"x"),
    (SHARE_KEYS, "ctxts", [b"one"]),
    (SHARE_KEYS, "dsts", [99, 98, 97]),
    (UNMASK, "shares", [b"one"]),
    (UNMASK, "nids", "text"),
]


@pytest.mark.parametrize(("stage", "key", "lie"), LIES)
def test_a_client_that_lies_is_left_out_or_not_needed(stage, key, lie, monkeypatch):
    let_lie(monkeypatch, stage, key, lambda said: lie)
    done = secure_mean(FOUR)
    mean = 0.45 if stage == UNMASK else 1.7 / 3  # its change was there before
    assert np.abs(done.mean["w"] - mean).max() < SecAggPlus().step
    assert set(done.failed) == (set() if stage == UNMASK else {0})


def test_shares_that_make_no_key_end_the_round_in_words(monkeypatch):
    let_lie(monkeypatch, UNMASK, "shares", lambda shares: [b"j"] * len(shares))
    with pytest.raises(RuntimeError, match="can't take the masks away: shares do not make a key"):
        secure_mean(FOUR)


@pytest.mark.parametrize("values", [(1.0, 2.0), (0.0, 0.0, 0.0), (0.1, 0.2, 0.6)])
def test_one_number_alone_has_its_mean(values):
    changes = [{"w": np.array(v), "x": np.full(2, v)} for v in values]
    done = secure_mean(changes, SecAggPlus(clipping_range=2.0))
    assert done.mean["w"].shape == ()
    assert done.mean["w"] == pytest.approx(np.mean(values), abs=SecAggPlus(clipping_range=2.0).step)
    assert {name: a.shape for name, a in done.masked[0].items()} == {"w": (), "x": (2,)}


ONES = {"w": np.ones(2)}


@pytest.mark.parametrize(
    ("changes", "given", "words"),
    [
        ([ONES, {"v": np.ones(2)}, ONES], {}, "client 1's change has other names or shapes"),
        ([ONES, ONES, {"w": np.ones(3)}], {}, "client 2's change has other names or shapes"),
        ([ONES, {"w": np.array([np.nan, 1])}, ONES], {}, "client 1's .* not finite"),
        ([ONES] * 3, {"weights": [0, 1, 1]}, "3 clients a whole number from 1"),
        ([ONES] * 3, {"weights": [1, 1]}, "give each of 3 clients a whole number"),
        ([ONES] * 3, {"weights": [1, 2**40, 3]}, "from 1 to 1,000,000"),
        ([ONES] * 3, {"weights": []}, "give each of 3 clients"),
        ([{}] * 3, {}, "hold no arrays"),
        ([ONES] * 3, {"seed": -1}, "seed=-1; it is a whole"),
        ([ONES] * 3, {"lost": [7]}, "clients count from 0 to 2"),
        ([ONES] * 3, {"lost": {0: "collect"}}, "a stage is one of setup, share_keys"),
    ],
)
def test_changes_that_have_no_mean_are_refused(changes, given, words):
    with pytest.raises(ValueError, match=words):
        secure_mean(changes, **given)


@pytest.mark.parametrize("lie", [2**62, -1, 2**32])
def test_masked_numbers_that_can_be_none_are_refused(lie, monkeypatch):
    def lies(record):
        return [ndarray_to_bytes(np.full_like(bytes_to_ndarray(x), lie)) for x in record]

    let_lie(monkeypatch, COLLECT, "masked_params", lies)
    done = secure_mean([{"a": np.full(3, 0.1 * j)} for j in range(5)])
    assert "outside of 0 to 2^32 - 1" in done.failed[0]
    assert done.mean["a"] == pytest.approx(np.full(3, 0.25), abs=SecAggPlus().step)


def test_a_mean_that_is_none_of_clipped_changes_is_refused(monkeypatch):
    """A masked number may lie within its range; the sum tells, nearly always."""

    def lies(record):
        return [ndarray_to_bytes(bytes_to_ndarray(x) ^ 2**31) for x in record]

    let_lie(monkeypatch, COLLECT, "masked_params", lies)
    with pytest.raises(RuntimeError, match="none of clipped changes"):
        secure_mean([{"a": np.full(3, 0.1 * j)} for j in range(5)])
