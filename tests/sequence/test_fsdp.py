"""FSDP around a strategy: values of one device, and bytes as predicted."""

from dataclasses import replace
from math import prod

import pytest
from test_equal_to_one_device import error, expected
from test_meshes import VIDEO

import workbench as wb
from workbench.collectives import sent_bytes
from workbench.fsdp import fsdp_bytes, fsdp_step

WAYS = [
    ("dsp", 2, {}),
    ("dsp", 2, {"keep_gathered": True}),
    ("ulysses", 2, {"checkpoint": "block"}),
    ("ring", 2, {"checkpoint": "selective", "accumulate": 3}),
    ("dsp", 3, {"checkpoint": "block", "switch": "outside"}),
]


@pytest.mark.parametrize(("name", "p", "how"), WAYS, ids=str)
def test_equal_to_one_device_and_as_predicted(name, p, how):
    output, loss, gradients = expected(VIDEO, "float64")
    step = fsdp_step(VIDEO, name, p=p, dtype="float64", shard="time", **how)
    assert error({"y": step.output}, {"y": output}) <= 1e-10
    assert error(step.gradients, gradients) <= 1e-10
    assert step.loss == pytest.approx(loss, rel=1e-10)
    assert max(step.max_error, step.grad_error) <= 1e-10
    memory = {key: value for key, value in how.items() if key != "keep_gathered"}
    # What moves activations is what it was without FSDP.
    plain = wb.fake_step(VIDEO, name, p=p, dtype="float64", shard="time", **memory)
    moved = [r for r in step.log if r.phase in ("forward", "backward")]
    assert moved == [r for r in plain.log if r.phase != "gradients"]
    counted = {"keep_gathered": how.get("keep_gathered", False)}
    counted["accumulate"] = how.get("accumulate", 1)
    predicted = fsdp_bytes(VIDEO, name, p=p, dtype="float64", **counted)
    assert predicted == {"weights": step.weight_bytes, "gradients": step.gradient_bytes}


def test_learned_positions_are_a_group_of_their_own():
    spec = replace(VIDEO, positions="learned")
    step = fsdp_step(spec, "dsp", p=2, dtype="float64", shard="time")
    assert max(step.max_error, step.grad_error) <= 1e-10
    predicted = fsdp_bytes(spec, "dsp", p=2, dtype="float64")
    assert predicted == {"weights": step.weight_bytes, "gradients": step.gradient_bytes}
    assert {r.layer for r in step.log if r.phase == "weights"} == {None, *range(spec.num_layers)}


def test_3fw_a_step_or_2fw_if_kept_gathered():
    """Source: arXiv:1910.02054, section 7: 1.5 times the volume of data parallelism."""
    model = wb.PRESETS["toy-video"]
    whole = 4 * model.parameters
    for p in (2, 4, 8):
        f = (p - 1) / p
        sent = [sum(fsdp_bytes(model, "dsp", p=p, keep_gathered=k).values()) for k in (False, True)]
        assert sent == [3 * f * whole, 2 * f * whole]
        all_reduce = wb.closed_form_bytes(model, "dsp", p=p, phase="gradients")
        assert sent[1] == all_reduce == sent_bytes("all_reduce", whole, p)


def test_weights_that_p_does_not_divide_are_padded():
    parts = [-(-shape[0] // 3) * prod(shape[1:]) for shape in VIDEO.weight_shapes().values()]
    assert fsdp_bytes(VIDEO, "dsp", p=3) == {
        "weights": 16 * sum(parts),
        "gradients": 8 * sum(parts),
    }


@pytest.mark.parametrize(("name", "p"), [("megatron-sp", 2), ("single", 2), ("dsp", 1)])
def test_refused_where_there_is_nothing_to_cut(name, p):
    with pytest.raises(ValueError, match="FSDP cuts weights that each of at least 2 ranks holds"):
        fsdp_step(VIDEO, name, p=p)
    with pytest.raises(ValueError, match=f"got {name}, p={p}"):
        fsdp_bytes(VIDEO, name, p=p)
