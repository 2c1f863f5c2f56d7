"""FSDP around a strategy: values of one device, and bytes as predicted and as faked."""

from dataclasses import replace
from math import prod

import pytest
import torch.distributed as dist
from test_equal_to_one_device import error, expected
from test_meshes import VIDEO

import workbench as wb
from workbench.collectives import sent_bytes

WAYS = [
    ("dsp", 2, {}),
    ("dsp", 2, {"fsdp": "keep"}),
    ("ulysses", 2, {"checkpoint": "block"}),
    ("ring", 2, {"checkpoint": "selective", "accumulate": 3}),
    ("dsp", 3, {"checkpoint": "block", "switch": "outside"}),
    ("usp", 4, {"mesh": {"ulysses": 2, "ring": 2}}),
    ("dsp", 4, {"mesh": {"data": 2, "dsp": 2}}),
    ("single", 2, {"mesh": {"data": 2}}),
    ("dsp", 1, {}),
]


def of_phases(step, spec, name, **run):
    """What a step sent, and what the closed form says, by phase."""
    phases = ("forward", "backward", "gradients", "weights")
    predicted = [wb.closed_form_bytes(spec, name, phase=phase, **run) for phase in phases]
    return [step.bytes_of(phase) for phase in phases], predicted


@pytest.mark.parametrize(("name", "p", "how"), WAYS, ids=str)
def test_equal_to_one_device_and_as_predicted(name, p, how):
    output, loss, gradients = expected(VIDEO, "float64")
    run = {"p": p, "dtype": "float64", "shard": "time", "fsdp": True, **how}
    step = wb.run_step(VIDEO, name, **run)
    assert error({"y": step.output}, {"y": output}) <= 1e-10
    assert error(step.gradients, gradients) <= 1e-10
    assert step.loss == pytest.approx(loss, rel=1e-10)
    assert step.max_error <= 1e-10
    assert step.grad_error <= 1e-10
    assert step.log == wb.fake_step(VIDEO, name, **run).log
    sent, predicted = of_phases(step, VIDEO, name, **run)
    assert sent == predicted
    # What moves activations is what it was without FSDP.
    plain = wb.fake_step(VIDEO, name, **run | {"fsdp": False})
    moved = [r for r in step.log if r.phase in ("forward", "backward")]
    assert moved == [r for r in plain.log if r.phase != "gradients"]


def test_learned_positions_are_a_group_of_their_own():
    spec = replace(VIDEO, positions="learned")
    run = {"p": 2, "dtype": "float64", "shard": "time", "fsdp": True}
    step = wb.run_step(spec, "dsp", **run)
    assert step.max_error <= 1e-10
    assert step.grad_error <= 1e-10
    sent, predicted = of_phases(step, spec, "dsp", **run)
    assert sent == predicted
    assert {r.layer for r in step.log if r.phase == "weights"} == {None, *range(spec.num_layers)}


def test_3fw_a_step_or_2fw_if_kept_gathered():
    """Source: arXiv:1910.02054, section 7: 1.5 times the volume of data parallelism."""
    model = wb.PRESETS["toy-video"]
    whole = 4 * model.parameters
    for p in (2, 8):
        f = (p - 1) / p
        faked = [wb.fake_step(model, "dsp", p=p, fsdp=how) for how in (True, "keep")]
        sent = [step.weight_bytes + step.gradient_bytes for step in faked]
        assert sent == [3 * f * whole, 2 * f * whole]
        all_reduce = wb.closed_form_bytes(model, "dsp", p=p, phase="gradients")
        assert sent[1] == all_reduce == sent_bytes("all_reduce", whole, p)


def test_weights_that_p_does_not_divide_are_padded():
    parts = [-(-shape[0] // 3) * prod(shape[1:]) for shape in VIDEO.weight_shapes().values()]
    faked = wb.fake_step(VIDEO, "dsp", p=3, fsdp=True)
    assert (faked.weight_bytes, faked.gradient_bytes) == (16 * sum(parts), 8 * sum(parts))


def test_a_rank_holds_less_and_weights_are_let_go_of_in_between():
    wide = replace(wb.PRESETS["toy-video"], dims={"time": 4, "space": 4}, d_model=64)
    plain, cut, kept = (
        wb.fake_step(wide, "dsp", p=4, fsdp=how).peak_bytes for how in (False, True, "keep")
    )
    # Plain: weights, gradients and their bucket. Cut: a quarter of two of them, and one branch.
    assert cut < 4 * wide.parameters < kept < 2 * 4 * wide.parameters < plain


def test_flops_and_activations_are_those_without_fsdp():
    plain, cut = (wb.fake_step(VIDEO, "ulysses", p=2, fsdp=how) for how in (False, True))
    assert plain.flops == cut.flops > 0


@pytest.mark.parametrize("name", ["megatron-sp", "megatron-tp"])
def test_refused_where_there_is_nothing_to_cut(name):
    for ask in (wb.fake_step, wb.run_step, wb.closed_form_bytes):
        with pytest.raises(ValueError, match="FSDP cuts weights that each rank holds whole"):
            ask(VIDEO, name, p=2, fsdp=True)
    with pytest.raises(ValueError, match="fsdp must be one of False, True, keep; got 'root'"):
        wb.fake_step(VIDEO, "dsp", p=2, fsdp="root")


def test_a_faked_step_leaves_no_process_group_and_takes_none_away():
    wb.fake_step(VIDEO, "dsp", p=2, fsdp=True)
    assert not dist.is_initialized()

    def on_rank(rank, comm):
        with pytest.raises(RuntimeError, match="this process is a rank of a real one"):
            wb.fake_step(VIDEO, "dsp", p=2, fsdp=True)
        return dist.is_initialized()

    assert wb.run_local(on_rank, 2) == [True, True]
