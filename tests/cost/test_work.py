"""Kernels by formula: their flops are those that a faked step counts."""

from dataclasses import replace

import pytest
from small_spec import spec
from test_traffic import GRID, SPECS, choices

import workbench as wb
from workbench.closed_form import prepared
from workbench.shares import shares
from workbench.strategies import Ring, strategies_that_run
from workbench.strategies.ring_schedule import blocks
from workbench.work import kernels

NOTHING = {"checkpoint": "none", "switch": "inside", "accumulate": 1, "fsdp": False}
#: The same without a mask: under one the ranks have unequally much to do.
OPEN = wb.TransformerSpec(dims={"time": 4, "space": 6}, stages=("space", "time"), d_model=16,
                          num_heads=4, num_kv_heads=2, num_layers=2, batch=2,
                          context_length=3)  # fmt: skip


def kernels_of(model, name, p, options=(), mesh=None, shard=None, **memory):
    memory = {**NOTHING, **memory}
    cls, shard = prepared(model, name, p, "float32", shard, mesh, memory, dict(options))
    given = {"p": p, "dtype": "float32", "shard": shard, "mesh": mesh}
    del memory["switch"], memory["fsdp"]
    return kernels(model, cls, **given, **memory)


def flops(found):
    return sum(k.flops * k.count for k in found)


def assert_equal(model, name, p, options=(), **given):
    predicted = flops(kernels_of(model, name, p, options, **given))
    assert predicted == wb.fake_step(model, name, p=p, **dict(options), **given).flops


@pytest.mark.parametrize(("model", "p"), [(SPECS[2], 2), (SPECS[4], 3), (OPEN, 4)], ids=str)
def test_flops_are_the_faked_steps(model, p):
    for name in ["single", *strategies_that_run(model, p)]:
        assert_equal(model, name, p)


@pytest.mark.parametrize("name", ["megatron-sp", "megatron-tp", "ulysses", "ring", "dsp"])
def test_flops_with_options_and_checkpoints(name):
    assert_equal(OPEN, name, 2, checkpoint="block", accumulate=2)
    assert_equal(replace(OPEN, context="sharded"), name, 2, checkpoint="selective")
    if name in ("ring", "dsp"):
        for options in choices(name)[-1:]:
            assert_equal(SPECS[1], name, 2, options)


@pytest.mark.parametrize("name", GRID)
def test_flops_on_meshes(name):
    assert_equal(SPECS[3], name, 4, mesh=GRID[name])
    assert_equal(replace(OPEN, context="sharded"), name, 4, mesh=GRID[name])
    assert_equal(OPEN, name, 8, mesh={"data": 2, **GRID[name]})


@pytest.mark.parametrize("order", ["contiguous", "zigzag", "striped"])
def test_under_a_causal_mask_the_busiest_rank_counts(order):
    model, p = spec("tokens=24", (wb.Stage("tokens", causal=True),)), 4
    ring = kernels_of(model, "ring", p, {"order": order})
    forward = flops(k for k in ring if (k.kind, k.phase) == ("attention", "forward"))
    layout = replace(model.stream.with_split("tokens"), order=order)
    counted = [
        sum(b.pairs for source in range(p) for b in blocks(*model.stages, layout, rank, source, p))
        for rank in range(p)
    ]
    per_pair = 4 * model.d_model
    if order == "striped":  # its ranks differ by a few pairs
        assert forward == pytest.approx(per_pair * max(counted), rel=0.2)
    else:
        assert forward == per_pair * max(counted)


MASKED = [
    (wb.Stage("a", causal=True, window=window), order)
    for window in (1, 2, 5, 6, 7, 13, 40)
    for order in ("contiguous", "zigzag")
] + [
    (wb.Stage("a", window=window), order)
    for window in (1, 5, 9, 40)
    for order in ("contiguous", "zigzag")
] + [
    (wb.Stage(dims, causal=True), order)
    for dims in (("a", "b"), ("b", "a"))
    for order in ("contiguous", "zigzag", "striped")
]  # fmt: skip


@pytest.mark.parametrize(("stage", "order"), MASKED, ids=str)
def test_blocks_out_of_reach_and_masks_are_counted_as_they_are_computed(stage, order):
    model, p = spec("a=48 b=3", (stage, "b")), 4
    found = next(k for n, k in shares(Ring.with_options(order=order), model, p, "a") if n == 0)
    layout = replace(model.stream.with_split("a"), order=order)
    counted = [
        sum(b.pairs for source in range(p) for b in blocks(stage, layout, rank, source, p))
        for rank in range(p)
    ]
    assert found.pairs == max(counted)


def test_a_checkpoint_computes_a_forward_again():
    plain, again = (kernels_of(OPEN, "dsp", 2, checkpoint=c) for c in ("none", "block"))
    forward = [k for k in plain if k.phase == "forward"]
    assert sum(k.bytes * k.count for k in again) == sum(k.bytes * k.count for k in plain) + sum(
        k.bytes * k.count for k in forward
    )


def test_bytes_of_a_product_by_hand():
    """64 tokens of 8 channels in float32 times an 8 x 8 weight: two reads and a write."""
    model = spec("tokens=64", ("tokens",))
    query = next(k for k in kernels_of(model, "single", 1) if k.kind == "matmul")
    assert (query.flops, query.bytes) == (2 * 64 * 8 * 8, 4 * (64 * (8 + 8) + 8 * 8))
