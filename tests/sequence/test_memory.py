"""What makes up a peak: kinds add up to what the meter counts, faked and on real tensors."""

import pytest
import torch
from test_meshes import VIDEO

import workbench as wb
from workbench import meter
from workbench.launch import local_device
from workbench.memory import KINDS, at_peak
from workbench.meter import Meter
from workbench.rank import RankStep

LONG = wb.TransformerSpec(
    dims={"time": 8, "space": 32}, stages=("space", "time"), d_model=32, num_heads=4,
    num_layers=2, batch=2,
)  # fmt: skip
WAYS = [
    {},
    {"checkpoint": "block", "switch": "outside"},
    {"checkpoint": "selective", "accumulate": 2},
]


@pytest.mark.parametrize("how", WAYS, ids=str)
@pytest.mark.parametrize("name", ["single", "megatron-sp", "ulysses", "ring", "dsp"])
def test_kinds_add_up_to_the_faked_step(name, how):
    p = 1 if name == "single" else 2
    found = at_peak(LONG, name, p=p, **how)
    assert found.step == wb.fake_step(LONG, name, p=p, **how)
    assert tuple(found.held) == KINDS
    assert min(found.held.values()) >= 0
    assert sum(found.held.values()) == found.step.peak_bytes


def test_weights_are_whole_unless_megatron_cuts_them():
    whole = 4 * LONG.parameters
    assert at_peak(LONG, "dsp", p=4).held["weights"] == whole
    assert (
        whole / 4 < at_peak(LONG, "megatron-tp", p=4).held["weights"] < whole / 3.8
    )  # norms and last biases are whole


def test_gradients_are_at_the_peak_once_parts_accumulate():
    whole = 4 * LONG.parameters
    assert at_peak(LONG, "dsp", p=2).held["gradients"] < whole / 100
    assert at_peak(LONG, "dsp", p=2, accumulate=2).held["gradients"] == whole


def test_a_model_of_few_tokens_peaks_in_the_sum_of_gradients():
    held = at_peak(VIDEO, "dsp", p=2, checkpoint="block").held
    whole = 4 * VIDEO.parameters
    assert held["weights"] == held["gradients"] == whole
    assert whole <= held["bucket"] <= 2 * (whole + 8)


@pytest.mark.parametrize("how", WAYS, ids=str)
def test_a_real_rank_holds_what_was_faked(how):
    def on_rank(rank, comm):
        cls = wb.STRATEGIES["dsp"]
        step = RankStep(comm, LONG, cls, "float32", 0, "time", local_device(), **how)
        with Meter(leaf for _, leaf in step.leaves()) as meter:
            step.run()
        return meter.peak_bytes, meter.flops

    faked = wb.fake_step(LONG, "dsp", p=2, shard="time", **how)
    for peak, flops in wb.run_local(on_rank, 2):
        # gloo may hold a collective's buffers a little longer.
        assert faked.peak_bytes <= peak <= 1.1 * faked.peak_bytes
        assert flops == faked.flops


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("strided", [False, True])
def test_a_meter_knows_what_torch_returns_on_meta(dtype, strided):
    of = {"dtype": dtype, "device": "meta"}
    x = torch.empty(2, 4, 3, 8, **of).transpose(1, 2) if strided else torch.empty(2, 3, 4, 8, **of)
    weight, mean = torch.empty(8, **of), torch.empty(2, *x.shape[1:3], 1, device="meta")
    of_norm = (x, x, [8], mean, mean, weight, weight)
    aten = torch.ops.aten
    flat, square = x.flatten(0, 2), torch.empty(8, 8, **of).t()
    calls = {
        aten.native_layer_norm.default: [(x, [8], weight, weight, 1e-5)],
        aten.native_layer_norm_backward.default: [(*of_norm, [True, False, True])],
        aten.gelu.default: [(x,)],
        aten.gelu_backward.default: [(x, x)],
        aten.addmm.default: [(weight, flat, square)],
        aten.mm.default: [(flat, square)],
        aten.add.Tensor: [(x, x), (x, weight), (x, x[:1]), (x, 1.0), (x, mean)],
        aten.sum.dim_IntList: [(x, [0, 1]), (x, [-1], True), (x, [0, 1, 2, 3]), (x, [])],
    }
    assert calls.keys() == meter._ON_META.keys()
    for op, ways in calls.items():
        for given in ways:
            assert described(meter._ON_META[op](*given)) == described(op(*given)), (op, given)


def described(out):
    out = out if isinstance(out, tuple) else (out,)
    return [None if t is None else (t.shape, t.stride(), t.dtype) for t in out]
