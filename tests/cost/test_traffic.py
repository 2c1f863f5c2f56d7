"""Every collective of every log, by formula: kind, axis, phase, stage and sizes, and how many."""

from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
from small_spec import spec

import workbench as wb
from workbench.closed_form import prepared
from workbench.strategies import MESHED, STRATEGIES, strategies_that_run
from workbench.traffic import Sent, known, traffic

SPECS = [
    spec("tokens=7", ("tokens",), layers=2, heads=12, d_model=24),
    spec("time=4 space=8", ("space", "time"), layers=2, heads=12, d_model=24, batch=2),
    spec("time=3 space=5", ("space", "time"), layers=2, heads=4, batch=2, mlp_per="layer"),
    spec("a=3 b=4 c=5", ("a", "b", "c"), layers=2, heads=4, batch=2),
    spec("a=2 b=3 c=4", (("b", "c"), "a"), layers=2, heads=12, d_model=12),
    wb.TransformerSpec(dims={"time": 4, "space": 6}, d_model=16,
                       stages=("space", wb.Stage("time", causal=True)),
                       num_heads=4, num_kv_heads=2, num_layers=2, batch=2,
                       context_length=3, positions="learned"),
]  # fmt: skip
TEXT = replace(SPECS[-1], context="sharded", num_layers=1)
GRID = {
    "usp": {"ulysses": 2, "ring": 2},
    "dsp-ulysses": {"dsp": 2, "ulysses": 2},
    "dsp-dsp": {"outer": 2, "inner": 2},
}


def choices(name):
    """Every choice of a strategy's options."""
    options = (STRATEGIES | MESHED)[name].options
    return [dict(zip(options, chosen, strict=True)) for chosen in product(*options.values())]


def by_formula(model, name, p, *, mesh=None, dtype="float32", shard=None, options=(), **memory):
    memory = {"checkpoint": "none", "switch": "inside", "accumulate": 1, "fsdp": False, **memory}
    given = (model, name, p, dtype, shard, mesh, memory, dict(options))
    cls, shard = prepared(*given)
    assert known(cls)
    found = traffic(model, cls, p=p, dtype=dtype, shard=shard, mesh=mesh, **memory)
    return Counter({sent._replace(count=0): sent.count for sent in found})


def counted(model, name, p, *, options=(), **given):
    log = wb.fake_step(model, name, p=p, **given, **dict(options)).log
    return Counter(
        Sent(r.kind, r.axis, r.phase, r.stage, r.input_bytes, r.sent_bytes, 0) for r in log
    )


def assert_equal(model, name, p, **given):
    formula, log = by_formula(model, name, p, **given), counted(model, name, p, **given)
    assert formula == log, (name, p, given, formula - log, log - formula)


@pytest.mark.parametrize(("model", "p"), list(zip(SPECS, (3, 4, 2, 2, 4, 2), strict=True)), ids=str)
def test_traffic_is_the_log(model, p):
    for name in ["single", *strategies_that_run(model, p)]:
        assert_equal(model, name, p)


def test_one_rank_sends_nothing():
    for name in ("ring", "dsp"):
        assert by_formula(SPECS[1], name, 1) == Counter()


@pytest.mark.parametrize("name", ["megatron-sp", "megatron-tp", "ulysses", "ring", "dsp"])
def test_traffic_of_every_option(name):
    for options in choices(name)[1:]:
        assert_equal(SPECS[-1], name, 2, options=options)
    if name == "dsp":
        assert_equal(SPECS[3], name, 2, options={"schedule": "bytes"})


@pytest.mark.parametrize("name", ["megatron-sp", "megatron-tp", "ulysses", "ring", "dsp"])
def test_traffic_with_checkpoints_and_parts(name):
    assert_equal(SPECS[-1], name, 2, checkpoint="block")
    assert_equal(SPECS[1], name, 2, checkpoint="block", switch="outside")
    assert_equal(SPECS[1], name, 2, checkpoint="selective", accumulate=2)
    assert_equal(SPECS[1], name, 2, dtype="bfloat16", shard="space")


@pytest.mark.parametrize("name", GRID)
def test_traffic_on_meshes(name):
    there, back = GRID[name], dict(reversed(GRID[name].items()))
    assert_equal(SPECS[1], name, 8, mesh={"data": 2, **there})
    assert_equal(SPECS[-1], name, 4, mesh=back, checkpoint="block", switch="outside")
    for options in choices(name):
        assert_equal(SPECS[3], name, 4, mesh=there, options=options)


@pytest.mark.parametrize("name", ["megatron-sp", "ring"])
def test_traffic_beside_a_data_axis(name):
    for mesh, p in (({"data": 2, name: 2}, 4), ({"data": 2}, 2)):
        assert_equal(SPECS[2], name, p, mesh=mesh)


def test_samples_of_unequal_lengths_are_sent_whole():
    for name in ("ring", "dsp"):
        assert_equal(replace(SPECS[2], valid={"time": (3, 1)}), name, 2)


def test_traffic_of_a_text_that_is_cut():
    for name in ("megatron-sp", "megatron-tp", "ring", "dsp"):
        assert_equal(TEXT, name, 2)
    assert_equal(TEXT, "ulysses", 2, checkpoint="block")
    for name, mesh in GRID.items():
        assert_equal(TEXT, name, 4, mesh=mesh)


@pytest.mark.parametrize("fsdp", [True, "keep"])
def test_traffic_of_cut_weights(fsdp):
    assert_equal(SPECS[-1], "dsp", 2, fsdp=fsdp, accumulate=2)
    assert_equal(SPECS[2], "ulysses", 4, fsdp=fsdp, checkpoint="block")
    assert_equal(SPECS[1], "ring", 4, fsdp=fsdp, mesh={"data": 2, "ring": 2})
