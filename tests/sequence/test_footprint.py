"""Memory in closed form equals a faked step's peak, and a real rank's, to the byte."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import workbench as wb
from workbench.footprint import KINDS, closed_form_memory

NAMES = ["single", "megatron-tp", "megatron-sp", "ulysses", "ring", "dsp"]
LONG = wb.TransformerSpec(
    dims={"time": 8, "space": 32}, stages=("space", "time"), d_model=32, num_heads=4,
    num_layers=2, batch=2,
)  # fmt: skip


@st.composite
def steps(draw):
    """A small model and a way to run it; sizes that don't divide, and dims of one entry, too."""
    names = ["time", "height", "width"][: draw(st.integers(1, 3))]
    stage = st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True).map(tuple)
    heads = draw(st.sampled_from([1, 2, 4, 8]))
    spec = {  # the model is made outside: the shape checks draw random numbers
        "dims": {name: draw(st.integers(1, 9)) for name in names},
        "stages": draw(st.lists(stage, min_size=1, max_size=3)),
        "d_model": heads * draw(st.sampled_from([1, 2, 4])),
        "num_heads": heads,
        "num_layers": draw(st.integers(1, 3)),
        "batch": draw(st.sampled_from([2, 4, 1])),
        "mlp_ratio": draw(st.sampled_from([1, 4])),
        "mlp_per": draw(st.sampled_from(["stage", "layer"])),
    }
    how = {
        "p": draw(st.sampled_from([2, 3, 4, 1, 8])),
        "dtype": draw(st.sampled_from(["float32", "bfloat16", "float64"])),
        "shard": draw(st.sampled_from([None, *names])),
        "checkpoint": draw(st.sampled_from(["none", "block", "selective"])),
        "switch": draw(st.sampled_from(["inside", "outside"])),
        "accumulate": draw(st.sampled_from([1, 2])),
    }
    return spec, how


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=12)
@given(step=steps())
def test_the_closed_form_is_the_faked_peak(name, step):
    spec, how = wb.TransformerSpec(**step[0]), step[1]
    try:
        peak = wb.fake_step(spec, name, **how).peak_bytes
    except ValueError as told:
        with pytest.raises(ValueError, match=re.escape(str(told))):
            closed_form_memory(spec, name, **how)
        return
    assert closed_form_memory(spec, name, **how).peak_bytes == peak


@pytest.mark.parametrize("checkpoint", ["none", "block", "selective"])
@pytest.mark.parametrize("name", NAMES)
def test_tensors_and_kinds_add_up(name, checkpoint):
    p = 1 if name == "single" else 4
    found = closed_form_memory(LONG, name, p=p, checkpoint=checkpoint, optimizer="adamw")
    assert sum(found.tensors.values()) == sum(found.kinds.values()) == found.peak_bytes
    assert min(found.tensors.values()) > 0
    assert tuple(found.kinds) == KINDS
    assert found.moment in ("forward", "loss", "backward")


def test_what_is_kept_of_a_layer_is_told_by_tensor():
    found = closed_form_memory(LONG, "single", p=1).tensors
    hidden = 4 * 4 * LONG.batch * LONG.tokens * LONG.d_model
    assert found[0, "mlp.0", "hidden"] == found[0, "mlp.1", "activated"] == hidden
    kept = {layer for layer, _, name in closed_form_memory(
        LONG, "single", p=1, checkpoint="block").tensors if name == "hidden"}  # fmt: skip
    assert kept == {1}  # of the other layer only what its blocks were given


def test_few_tokens_peak_at_the_end():
    spec = wb.TransformerSpec(
        dims={"time": 2}, stages=("time",), d_model=64, num_heads=4, num_layers=1
    )
    found = closed_form_memory(spec, "ring", p=2)
    assert found.moment == "end"
    assert found.kinds["bucket"] == found.kinds["gradients"] == found.kinds["weights"]


def test_the_optimizer_comes_on_top():
    bare, adamw = (closed_form_memory(LONG, "dsp", p=2, optimizer=o) for o in (None, "adamw"))
    assert closed_form_memory(LONG, "dsp", p=2, optimizer="sgd") == bare
    weights = [torch.zeros(shape, requires_grad=True) for shape in LONG.weight_shapes().values()]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    real = torch.optim.AdamW(weights)
    real.step()
    state = sum(t.untyped_storage().nbytes() for one in real.state.values() for t in one.values())
    assert adamw.peak_bytes - bare.peak_bytes == adamw.kinds["optimizer"] == state


@pytest.mark.parametrize(
    "step",
    [
        {"spec": LONG, "strategy": "ring", "p": 4, "transfer": "all-gather"},
        {"spec": LONG, "strategy": "dsp", "p": 2, "autocast": True},
    ],
    ids=lambda step: list(step)[-1],
)
def test_what_is_not_covered_is_told(step):
    with pytest.raises(ValueError, match=r"does not cover .* fake_step\(\.\.\.\)\.peak_bytes"):
        closed_form_memory(**step)


def test_an_unknown_optimizer_is_told():
    with pytest.raises(ValueError, match="optimizer must be one of None, 'sgd', 'adamw'"):
        closed_form_memory(LONG, "dsp", p=2, optimizer="lion")
