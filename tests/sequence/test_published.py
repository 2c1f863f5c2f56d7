"""The published volumes come out of the logs, and what they leave out stands beside them."""

import re

import pytest
from cases import spec

from workbench.published import GRADES, volume_table
from workbench.strategies import STRATEGIES


def video(time=8, space=16, layers=1, batch=1):
    return spec(f"time={time} space={space}", ("space", "time"), layers, 8, batch, d_model=32)


@pytest.mark.parametrize(
    ("model", "p", "dtype"),
    [
        (video(), 1, "float32"),
        (video(space=4), 2, "float32"),
        (video(layers=3, batch=2), 4, "bfloat16"),
    ],
    ids=["p=1", "p=2", "p=4"],
)
def test_counted_is_published(model, p, dtype):
    for row in volume_table(model, p=p, dtype=dtype):
        assert row.forward_bytes == row.published_bytes, row
        assert (row.forward_bytes > 0) == (p > 1)


def test_every_row_by_hand():
    """M = 8*16*32*4 = 16384 bytes; one rank of 4 sends 3/4 of the published volume."""
    rows = volume_table(video(), p=4)
    assert {(r.strategy, r.published, r.forward_bytes) for r in rows} == {
        ("dsp", "2M/N", 6144),
        ("ulysses", "4M/N", 12288),
        ("ulysses", "8M/N", 24576),
        ("ring", "2M", 24576),
        ("ring", "4M", 49152),
        ("megatron-sp", "8M", 98304),
        ("megatron-sp", "6M", 73728),
        ("megatron-tp", "8M", 98304),
        ("megatron-tp", "6M", 73728),
    }


def test_what_the_paper_leaves_out():
    model = video(layers=2)
    for row in volume_table(model, p=4):
        if row.strategy == "ring":  # dK and dV take p hops of 2M/p to come home
            attentions = 2 if row.blocks == "both" else 1
            home = attentions * 2 * model.activation_bytes()
            assert row.backward_bytes == row.forward_bytes + home
        else:
            assert row.backward_bytes == row.forward_bytes
        replicated = row.strategy in ("dsp", "ulysses", "ring")
        weights = 2 * model.parameters * 4 // model.num_layers * 3 // 4
        if replicated:
            assert row.gradient_bytes == weights
        elif row.strategy == "megatron-sp":
            assert 0 < row.gradient_bytes < weights / 10
        else:
            assert row.gradient_bytes == 0


def test_uneven_sizes_send_their_padding():
    for row in volume_table(video(time=5, space=7), p=4):
        cut = STRATEGIES[row.strategy].cuts_sequence
        assert (row.forward_bytes > row.published_bytes) == cut, row


def test_rows_say_where_they_are_from():
    for row in volume_table(video(), p=2):
        assert row.grade in GRADES
        assert row.source
        assert re.fullmatch(r"\dM(/N)?", row.published)


@pytest.mark.parametrize(
    "model",
    [
        spec("tokens=8", ("tokens",)),
        spec("time=4 space=4", (("time", "space"),)),
        spec("time=4 space=4", ("time", "time")),
        spec("a=2 b=2 c=2", ("a", "b")),
    ],
    ids=str,
)
def test_other_models_are_refused(model):
    with pytest.raises(ValueError, match=r"two dims and one attention along each.*closed_form"):
        volume_table(model, p=2)
