"""Explanations say what the log says, line by line, and pair two strategies place by place."""

from dataclasses import replace

import pytest

import workbench as wb
from workbench.explain_step import LAYERS
from workbench.units import human_bytes

VIDEO = wb.PRESETS["toy-video"]
RUNS = [
    *((name, {}) for name in wb.STRATEGIES),
    ("usp", {"mesh": {"ulysses": 2, "ring": 2}}),
    ("dsp", {"mesh": {"data": 2, "sp": 2}}),
    ("dsp", {"checkpoint": "block"}),
]


@pytest.mark.parametrize(("name", "options"), RUNS)
def test_lines_add_up_to_the_log(name, options):
    model = replace(VIDEO, batch=2)
    step = wb.fake_step(model, name, p=4, **options)
    told = wb.explain(model, name, 4, **options)
    assert sum(line.count for line in told.lines) == len(step.log)
    for phase in ("forward", "backward", "gradients"):
        assert told.total(phase) == step.bytes_of(phase)
    m = model.activation_bytes()
    assert all(line.share * m == line.sent_bytes for line in told.lines)
    for line in told.lines:  # the formula, worked out with the rounded size, is near the bytes
        factor, size, unit = line.formula.replace(" x ", " ").split()
        numerator, _, denominator = factor.partition("/")
        found = float(numerator) / float(denominator or 1) * float(size)
        assert found * {"B": 1, "kB": 1e3, "MB": 1e6}[unit] == pytest.approx(
            line.sent_bytes, rel=0.01
        )
    assert str(told).count("\n") == len(told.lines) + 1
    assert told._repr_markdown_().count("\n| ") == len(told.lines) + 2


def test_deep_models_are_shown_in_part():
    deep = replace(VIDEO, num_layers=28)
    told = wb.explain(deep, "dsp", 4)
    assert {line.layer for line in told.lines} <= {*range(LAYERS), None}
    assert f"{LAYERS} of 28 layers" in str(told)


def test_the_step_that_is_shown_is_the_one_that_runs():
    """A model of two layers would be cut elsewhere at first."""
    dims = {"a": 7, "b": 4, "c": 7}
    model = wb.TransformerSpec(
        dims=dims, stages=("b", "a", "c"), d_model=4, num_heads=1, num_layers=5
    )
    told, step = wb.explain(model, "dsp", 4), wb.fake_step(model, "dsp", p=4)
    assert step.shard != wb.fake_step(replace(model, num_layers=LAYERS), "dsp", p=4).shard
    shown = [r for r in step.log if r.layer is None or r.layer < LAYERS]
    assert sum(line.count for line in told.lines) == len(shown)
    assert sum(line.sent_bytes for line in told.lines) == sum(r.sent_bytes for r in shown)


def test_two_side_by_side():
    a, b = (wb.explain(VIDEO, name, 4, shard="time") for name in ("dsp", "ulysses"))
    beside = wb.diff(a, b)
    rows = list(beside.rows())
    assert sum(x.sent_bytes for x, _ in rows if x) == sum(line.sent_bytes for line in a.lines)
    assert sum(y.sent_bytes for _, y in rows if y) == sum(line.sent_bytes for line in b.lines)
    for x, y in rows:
        assert x is None or y is None or (x.phase, x.layer, x.stage) == (y.phase, y.layer, y.stage)
    assert "2.67 of it" in str(beside)  # 4 x 2 all-to-alls of Ulysses against 3 switches
    assert "dsp" in beside._repr_markdown_()


def test_weights_that_fsdp_gathers_are_told_where_there_are_any():
    cut, whole = wb.explain(VIDEO, "dsp", 4, fsdp=True), wb.explain(VIDEO, "dsp", 4)
    sent = wb.fake_step(VIDEO, "dsp", p=4, fsdp=True).weight_bytes
    assert cut.total("weights") == sent > 0
    assert f"weights {human_bytes(sent)}" in cut.title
    assert "weights" not in whole.title
    for a, b in ((cut, whole), (whole, cut)):
        assert "weights, in all" in str(wb.diff(a, b))
    assert "weights, in all" not in str(wb.diff(whole, whole))


def test_refusals_are_those_of_a_step():
    with pytest.raises(ValueError, match="Strategies that would run"):
        wb.explain(wb.PRESETS["toy-text"], "dsp", 4)
