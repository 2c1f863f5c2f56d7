"""Autocast: bfloat16 where torch computes in it, logs as faked, values as close as bfloat16 is."""

import pytest
import torch
from test_meshes import VIDEO

import workbench as wb

#: strategy, options -> dtypes of what travels forward, backward.
WAYS = {
    "dsp": ({}, {"float32"}, {"float32"}),  # the residual stream
    "ulysses": ({}, {"bfloat16"}, {"bfloat16"}),  # queries, keys, values and what they see
    "ring": ({"checkpoint": "block"}, {"bfloat16"}, {"bfloat16"}),
    "megatron-sp": ({"accumulate": 3}, {"float32", "bfloat16"}, {"float32", "bfloat16"}),
    "megatron-tp": ({}, {"bfloat16"}, {"float32"}),
}


@pytest.mark.parametrize("name", WAYS)
def test_the_log_is_as_faked_and_values_as_close_as_bfloat16(name):
    how, forward, backward = WAYS[name]
    run = {"p": 3, "shard": "time", "autocast": True, **how}
    step, faked = wb.run_step(VIDEO, name, **run), wb.fake_step(VIDEO, name, **run)
    assert step.log == faked.log
    for phase, dtypes in (("forward", forward), ("backward", backward)):
        assert {r.dtype for r in step.log if r.phase == phase} == dtypes
    # Weights, and so their gradients, stay in float32.
    assert {r.dtype for r in step.log if r.phase == "gradients"} <= {"float32"}
    assert step.output.dtype == torch.float32
    assert 1e-5 < step.max_error < 0.02
    assert 1e-5 < step.grad_error < 0.03
    plain = wb.fake_step(VIDEO, name, **run | {"autocast": False})
    assert faked.flops == plain.flops
    assert (
        faked.sent_bytes == plain.sent_bytes
        if name == "dsp"
        else faked.sent_bytes < plain.sent_bytes
    )


def test_with_fsdp_weights_are_gathered_in_float32():
    run = {"p": 2, "shard": "time", "autocast": True, "fsdp": True}
    step = wb.run_step(VIDEO, "dsp", **run)
    assert step.log == wb.fake_step(VIDEO, "dsp", **run).log
    assert {r.dtype for r in step.log if r.phase == "weights"} == {"float32"}
    assert step.grad_error < 0.03


def test_closed_forms_know_one_dtype_and_say_so():
    with pytest.raises(ValueError, match="closed forms know one dtype; fake_step"):
        wb.closed_form_bytes(VIDEO, "dsp", p=2, autocast=True)
