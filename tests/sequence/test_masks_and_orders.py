"""Causal and windowed stages, grouped queries, and how a ring deals its tokens to the ranks."""

import pickle
from itertools import product

import pytest
import torch
from cases import combinations, run_all
from test_equal_to_one_device import error, expected, hold

import workbench as wb
from workbench.dims import Stage
from workbench.layout import Dims, Layout, put_shard, take_shard
from workbench.strategies import STRATEGIES
from workbench.strategies.ring_schedule import blocks

CAUSAL_TIME = Stage("time", causal=True)
ORDERS = ["contiguous", "zigzag", "striped"]


def spec(stages, kv_heads=None, batch=1, layers=1, **dims):
    return wb.TransformerSpec(
        dims=dims, stages=stages, d_model=24, num_heads=12, num_kv_heads=kv_heads,
        num_layers=layers, batch=batch,
    )  # fmt: skip


SPECS = [
    spec(("space", CAUSAL_TIME), 3, time=4, space=6),
    spec((Stage("t", causal=True),), 4, batch=2, layers=2, t=11),
    spec((Stage("t", causal=True, window=3),), 1, t=16),
    spec((Stage("t", window=4),), 12, t=9),
    spec((Stage(("a", "b"), causal=True), "b"), 2, a=5, b=3),
]


def variants(p, specs=SPECS):
    """Each strategy on each of the models, rings and Ulysses with their options, too."""
    for model, name, shard in combinations(p, specs, every_shard=True):
        yield model, name, shard
        if name == "ring" and p > 1:
            for order in ORDERS[1:]:
                yield model, STRATEGIES["ring"].with_options(order=order), shard
            for order in ORDERS:
                chosen = {"order": order, "transfer": "all-gather"}
                yield model, STRATEGIES["ring"].with_options(**chosen), shard
        if name == "ulysses" and p > 1:
            yield model, STRATEGIES["ulysses"].with_options(packed=True), shard


@pytest.mark.parametrize("p", [1, 2, 3, 4])
def test_equal_to_one_device(p):
    cases = list(variants(p))
    for case, step in zip(cases, run_all(cases, p, "float64"), strict=True):
        hold(case, step, "float64")


def test_bfloat16_masks():
    cases = list(variants(2))
    for case, step in zip(cases, run_all(cases, 2, "bfloat16"), strict=True):
        exact = expected(case[0], "float64")
        assert error({"y": step.output.double()}, {"y": exact[0]}) < 0.03, case
        found = {name: t.double() for name, t in step.gradients.items()}
        assert error(found, exact[2]) < 0.05, case


def pairs(stage, size, order, p):
    layout = Layout(Dims({"batch": 1, "t": size, "model": 1}), "t", order=order)
    return [
        sum(b.pairs for source in range(p) for b in blocks(stage, layout, rank, source, p))
        for rank in range(p)
    ]


@pytest.mark.parametrize("p", [2, 3, 5])
def test_a_zigzag_computes_one_block_a_hop(p):
    """Where its runs are even: two merges of a hop would read and write its whole output twice."""
    layout = Layout(Dims({"batch": 1, "t": 4 * p, "model": 1}), "t", order="zigzag")
    for rank, source in product(range(p), repeat=2):
        (block,) = blocks(Stage("t", causal=True), layout, rank, source, p)
        assert block.mask is None
        assert block.causal == (rank == source)


@pytest.mark.parametrize("order", ORDERS)
def test_every_visible_pair_is_computed_once(order):
    for size, p in ((24, 4), (16, 2), (7, 3), (2, 4)):
        found = pairs(Stage("t", causal=True), size, order, p)
        assert sum(found) == size * (size + 1) // 2
        assert sum(pairs(Stage("t"), size, order, p)) == size**2


def test_zigzags_and_stripes_share_out_causal_work():
    causal = Stage("t", causal=True)
    contiguous, zigzag, striped = (pairs(causal, 64, order, 4) for order in ORDERS)
    # Source: arXiv:2311.09431: the first rank does 1/(2p-1) of the last one's work, about.
    assert contiguous[-1] / contiguous[0] == pytest.approx(2 * 4 - 1, rel=0.1)
    assert len(set(zigzag)) == 1
    assert max(striped) / min(striped) < 1.1


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("p", [1, 2, 3, 5])
def test_dealt_shards_make_up_the_whole(order, p):
    x = torch.arange(2 * 7 * 3).view(2, 7, 3)
    layout = Layout(Dims({"batch": 2, "t": 7, "model": 3}), "t", order=order)
    whole = torch.zeros_like(x)
    for rank in range(p):
        part = take_shard(x, layout, rank, p)
        assert part.shape == layout.local_shape(p)
        put_shard(whole, part, layout, rank, p)
    assert torch.equal(whole, x)


def test_a_stage_is_a_tuple_with_a_mask():
    causal = Stage(("time",), causal=True, window=2)
    assert Stage("time") == ("time",)
    assert hash(Stage("time")) == hash(("time",))
    assert causal != ("time",)
    assert causal == Stage("time", causal=True, window=2)
    assert pickle.loads(pickle.dumps(causal)) == causal
    assert repr(causal) == "Stage('time', causal=True, window=2)"
    with pytest.raises(ValueError, match="window must be"):
        Stage("time", window=0)


def test_grouped_queries_send_less_and_are_refused_where_they_cannot_be_shared():
    dims = {"t": 16}
    full = wb.TransformerSpec(dims=dims, stages=("t",), d_model=64, num_heads=8, num_layers=1)
    grouped = wb.TransformerSpec(
        dims=dims, stages=("t",), d_model=64, num_heads=8, num_kv_heads=2, num_layers=1
    )
    ring = [wb.closed_form_bytes(m, "ring", p=4) for m in (full, grouped)]
    assert ring[0] == 4 * ring[1]
    # Two key heads on four ranks: copied to four, so queries' and outputs' heads are half of all.
    ulysses = [wb.closed_form_bytes(m, "ulysses", p=4) for m in (full, grouped)]
    assert ulysses[1] * (2 + 2) == ulysses[0] * (2 + 2 * 4 / 8)
    with pytest.raises(ValueError, match="num_kv_heads must be a multiple of p"):
        wb.fake_step(grouped, "megatron-sp", p=4)
    with pytest.raises(ValueError, match="not a multiple of num_kv_heads=3"):
        wb.TransformerSpec(
            dims=dims, stages=("t",), d_model=64, num_heads=8, num_kv_heads=3, num_layers=1
        )


def test_a_packed_exchange_is_one_record():
    model = SPECS[1]
    apart, packed = (wb.fake_step(model, "ulysses", p=4, packed=x) for x in (False, True))
    assert apart.sent_bytes == packed.sent_bytes
    assert len([r for r in apart.log if r.phase == "forward"]) == 4 * model.num_layers
    assert len([r for r in packed.log if r.phase == "forward"]) == 2 * model.num_layers


def test_gathering_keys_sends_as_a_ring_forward_and_less_backward():
    model = SPECS[1]
    ring, gather = (wb.fake_step(model, "ring", p=4, transfer=t) for t in ("ring", "all-gather"))
    assert gather.forward_bytes == gather.backward_bytes == ring.forward_bytes
    assert ring.backward_bytes == ring.forward_bytes * 7 // 3  # 2p - 1 hops for p - 1
    kinds = {record.kind for record in gather.log if record.phase != "gradients"}
    assert kinds == {"all_gather", "reduce_scatter"}


def test_waits_stand_on_the_records():
    shifts = [r for r in wb.run_step(SPECS[1], "ring", p=2).log if r.kind == "ring_shift"]
    assert shifts
    assert all(r.waited_s >= 0 for r in shifts)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("order", ORDERS)
def test_masks_are_no_tensors_that_a_faked_step_could_trip_over(order, window):
    """However tensors are faked, and whatever was computed before: the same peak, no crash."""
    stages = (Stage("a", causal=True, window=window), "b")
    model = wb.TransformerSpec(dims={"a": 16, "b": 4}, stages=stages, d_model=16, num_heads=4,
                               num_layers=1)  # fmt: skip
    how = {"p": 2, "shard": "a", "order": order}
    blocks.cache_clear()
    first, again = (wb.fake_step(model, "ring", **how).peak_bytes for _ in range(2))
    assert first == again
    assert wb.fake_step(model, "ring", **how, fsdp=True).log
    assert wb.fake_step(model, "ring", **how, autocast=True).log
    if window is None:
        assert wb.closed_form_memory(model, "ring", **how).peak_bytes == first
