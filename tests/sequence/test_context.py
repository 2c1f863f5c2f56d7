"""Cross-attention to a text that every rank has whole: equal to one device, and free."""

from dataclasses import replace

import pytest
from cases import combinations, run_all
from test_equal_to_one_device import hold
from test_meshes import VIDEO, VOLUME

import workbench as wb
from workbench.strategies import STRATEGIES
from workbench.trace import walk

MODELS = [
    replace(VIDEO, context_length=7),
    replace(VOLUME, context_length=3, num_kv_heads=2, mlp_per="layer"),
]


@pytest.mark.parametrize("p", [1, 2, 3])
def test_equal_to_one_device(p):
    cases = list(combinations(p, MODELS))
    for case, step in zip(cases, run_all(cases, p, "float64"), strict=True):
        hold(case, step, "float64")


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "single"])
def test_only_cut_heads_send_for_it(name):
    model = replace(VIDEO, num_heads=4)
    with_text = replace(model, context_length=7)
    sent = [wb.closed_form_bytes(m, name, p=4, shard="time") for m in (model, with_text)]
    assert (sent[0] == sent[1]) is (name not in ("megatron-tp", "megatron-sp"))


@pytest.mark.parametrize(
    "how",
    [{"checkpoint": "block"}, {"accumulate": 3}, {"mesh": {"data": 2, "sp": 1}}],
    ids=lambda how: next(iter(how)),
)
def test_texts_stay_with_their_samples(how):
    step = wb.run_step(MODELS[0], "dsp", p=2, dtype="float64", **how)
    assert step.max_error < 1e-12
    assert step.grad_error < 1e-12


def test_flops_and_weights_count_it():
    plain, with_text = VIDEO, MODELS[0]
    assert with_text.parameters > plain.parameters
    assert wb.fake_step(with_text, "single", p=1).flops == with_text.flops > plain.flops


def test_pictures_leave_it_out():
    titles = [[f.title for f in walk(m, "dsp", 2, "time")] for m in (VIDEO, MODELS[0])]
    assert titles[0] == titles[1]


def test_refusals():
    with pytest.raises(ValueError, match="context_length must be an integer of at least 1"):
        replace(VIDEO, context_length=-1)
