"""Megatron-SP that gathers again: equal to one device, 6fM backward for 4fM, and less memory."""

from dataclasses import replace

import pytest
import torch
from cases import SPECS, combinations, run_all
from test_equal_to_one_device import hold
from test_meshes import VIDEO
from test_recompute import slope

import workbench as wb
from workbench.strategies import MegatronSP

AGAIN = MegatronSP.with_options(regather=True)
MODELS = [
    *SPECS[1:4],
    SPECS[8],
    replace(VIDEO, context_length=7),
    replace(VIDEO, num_kv_heads=6, batch=2),
]


@pytest.mark.parametrize("p", [1, 2, 3, 4])
def test_equal_to_one_device(p):
    found = [case for case in combinations(p, MODELS, every_shard=True) if case[1] == "megatron-sp"]
    cases = [(model, AGAIN, shard) for model, _, shard in found]
    for case, step in zip(cases, run_all(cases, p, "float64"), strict=True):
        hold(case, step, "float64")


def test_a_checkpointed_block_gathers_once_more():
    how = {"p": 2, "dtype": "float64", "checkpoint": "block", "accumulate": 3, "regather": True}
    step = wb.run_step(VIDEO, "megatron-sp", **how)
    assert step.max_error < 1e-12
    assert step.grad_error < 1e-12
    faked = wb.fake_step(VIDEO, "megatron-sp", **how)
    assert faked.log == step.log
    assert [faked.forward_bytes, faked.backward_bytes] == [
        wb.closed_form_bytes(VIDEO, "megatron-sp", phase=phase, **how)
        for phase in ("forward", "backward")
    ]


def test_bytes_are_those_of_the_formula():
    """A layer is two of attention + MLP: 2 x (4fM + 4fM), or with 6fM backward.

    Source: arXiv:2205.05198, section 4.2.2: the extra all-gather is made in the backward.
    """
    f_m_over_p = 4  # `slope` is in units of fM / p
    assert slope("megatron-sp") == 2 * (4 + 4) * f_m_over_p
    assert slope("megatron-sp", regather=True) == 2 * (4 + 6) * f_m_over_p


def test_the_gathered_input_is_not_kept():
    model = wb.TransformerSpec(
        dims={"time": 16, "space": 64}, stages=("space", "time"), d_model=64, num_heads=8,
        num_layers=4, batch=4,
    )  # fmt: skip
    kept, again = (wb.fake_step(model, "megatron-sp", p=8, regather=r) for r in (False, True))
    assert again.flops == kept.flops
    inputs = 2 * 2 * model.num_layers  # each branch's: M bytes gathered, M / 8 in parts
    saved = inputs * model.activation_bytes() * 7 / 8
    assert 0.8 * saved < kept.peak_bytes - again.peak_bytes <= saved


def test_records_say_which_branch_they_belong_to():
    log = wb.fake_step(VIDEO, "megatron-sp", p=2, regather=True).log
    backward = [(r.layer, r.stage, r.kind) for r in log if r.phase == "backward"]
    branch = ["all_gather", "all_gather", "reduce_scatter"]  # the gradient's, then the input's
    assert backward == [
        (layer, stage, kind) for layer in (1, 0) for stage in (1, 0) for kind in 2 * branch
    ]


def test_hidden_units_cannot_be_computed_again_from_an_input_that_is_gone():
    with pytest.raises(ValueError, match="keeps no such input; take checkpoint='none' or 'block'"):
        wb.fake_step(VIDEO, "megatron-sp", p=2, regather=True, checkpoint="selective")


def test_bfloat16():
    step = wb.run_step(VIDEO, "megatron-sp", p=2, dtype="bfloat16", regather=True)
    assert step.output.dtype == torch.bfloat16
    assert step.max_error < 0.03
    assert step.grad_error < 0.05


def test_it_passes_the_suite():
    models = ("two dims", "uneven, a batch", "one dim")
    wb.verify("megatron-sp", ranks=(3,), models=models, regather=True).assert_passed()
