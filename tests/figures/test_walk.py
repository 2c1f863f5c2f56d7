"""The frames that layout pictures are drawn from say what the log says, to the byte."""

import itertools
import re
from dataclasses import replace
from math import prod

import numpy as np
import pytest
from drawn import FEW, SPECS, combinations, sizes, spec

import workbench as wb
from workbench.strategies import STRATEGIES
from workbench.trace import walk
from workbench.transformer import PRESETS

# Three ranks divide few of the sizes: all models there, one of each number of dims elsewhere.
CASES = [(p, *case) for p in (1, 2, 3, 4) for case in combinations(p, SPECS if p == 3 else FEW)]


def ids(case):
    p, model, name, shard = case
    return f"{name}-p{p}-{sizes(model)}-{shard}"


def elements(piece, frame):
    batch = frame.layout.sizes["batch"]
    return batch * prod(high - low for low, high in piece.box.values())


@pytest.fixture(params=CASES, ids=ids, scope="module")
def walked(request):
    p, model, name, shard = request.param
    return model, name, shard, walk(model, name, p, shard)


def test_frames_hold_the_records_of_the_faked_log(walked):
    model, name, shard, frames = walked
    if shard is not None:
        return  # faking a whole step takes a while
    log = wb.fake_step(model, name, p=frames[0].p, shard=shard).log
    shown = [record for frame in frames for record in frame.records]
    first = [r for r in log if r.phase == "forward" and r.layer == 0]
    assert shown[: len(first)] == first
    following = shown[len(first) :]
    assert len(following) <= 1  # the switch into the next layer
    assert all(r.kind == "all_to_all" and r.layer == 1 for r in following)


def test_each_stage_is_attended_and_never_along_a_cut_dim(walked):
    model, _, _, frames = walked
    attended = [f for f in frames if f.event == "attend" or (f.event, f.hop) == ("hop", 0)]
    assert tuple(f.attended for f in attended) == model.stages
    assert all(f.layout.split not in f.attended for f in frames if f.event == "attend")


def test_pieces_amount_to_the_bytes_of_the_log(walked):
    *_, frames = walked
    for frame in (frame for frame in frames if frame.records):
        record, copies = frame.records[0], len(frame.records)
        for rank in range(frame.p):
            pieces = frame.pieces(rank)
            if record.kind == "all_gather":
                moved = [piece for piece in pieces if piece.source != rank]
            elif record.kind == "ring_shift":
                moved = [piece for piece in pieces if piece.role == "KV"] * 2  # keys, values
            elif record.kind == "all_reduce":
                continue  # its parts are no pieces of one tensor
            else:
                moved = [piece for piece in pieces if not piece.held]
            count = sum(elements(piece, frame) for piece in moved)
            assert count * copies * 4 == frame.sent_bytes


def test_held_pieces_cover_the_tensor_evenly(walked):
    *_, frames = walked
    for frame in (frame for frame in frames if frame.event != "hop"):
        names = [name for name in frame.layout.sizes if name != "batch"]
        seen = np.zeros([frame.layout.sizes[name] for name in names], int)
        for rank in range(frame.p):
            for piece in frame.pieces(rank):
                if piece.held:
                    seen[tuple(slice(*piece.box[name]) for name in names)] += 1
        assert (seen == (1 if frame.layout.split else frame.p)).all()


def test_around_a_ring_every_rank_sees_every_block():
    frames = walk(spec("time=5 space=3", ("time",)), "ring", 3, "time")
    hops = [frame for frame in frames if frame.event == "hop"]
    for rank in range(3):
        blocks = [piece.source for frame in hops for piece in frame.pieces(rank)[1:]]
        assert sorted(blocks) == [0, 1, 2]


def test_titles_are_in_layout_notation():
    titles = [frame.title for frame in walk(wb.PRESETS["toy-video"], "ulysses", 4)]
    assert "3 x all_to_all: [B, T/sp, S, H, C] -> [B, T, S, H/sp, C]" in titles
    ring = [frame.title for frame in walk(wb.PRESETS["toy-text"], "ring", 2)]
    assert ring[1:] == [
        "attention along tokens, hop 0: own K, V",
        "attention along tokens, hop 1: K, V of rank r-1",
    ]


def test_cutting_the_weights_cuts_heads_and_hidden_units():
    frames = walk(SPECS[1], "megatron-tp", 2)
    cut = {frame.event: frame.layout.split for frame in frames}
    assert cut == {"start": None, "attend": "heads", "collective": None, "mlp": "ff"}


def test_more_layers_can_be_shown():
    model = SPECS[1]
    one, two = (walk(model, "dsp", 2, layers=layers) for layers in (1, 2))
    assert two[: len(one)] == one
    assert sum(frame.event == "attend" for frame in two) == 4


def test_a_strategy_that_refuses_is_refused_with_its_reason():
    with pytest.raises(ValueError, match=r"num_heads must be a multiple of p.*would run"):
        walk(wb.PRESETS["toy-video"], "ulysses", 3)


def test_every_strategy_is_among_the_cases():
    assert {name for _, _, name, _ in CASES} == set(STRATEGIES)
    dims = {len(model.dims) for _, model, _, _ in CASES}
    assert dims == {1, 2, 3}


SIZES = [(1, 1, 1), (7, 2, 16), (16, 8, 3)]


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("preset", ["toy-video", "toy-volume", "llama-3-8b"])
def test_the_events_do_not_depend_on_the_sizes(preset, name):
    """By name the events come from one run at small sizes; by class from one at these sizes."""
    for p, given in itertools.product((1, 3, 8), SIZES):
        dims = dict(zip(PRESETS[preset].dims, given, strict=False))
        spec = replace(PRESETS[preset], dims=dims, batch=1 + p % 2)
        try:
            quick = walk(spec, name, p)
        except ValueError as error:
            with pytest.raises(ValueError, match=re.escape(str(error))):
                walk(spec, STRATEGIES[name], p)
            continue
        there = walk(spec, STRATEGIES[name], p)
        assert quick == there
        layouts = [[(r.before, r.after) for f in found for r in f.records]
                   for found in (quick, there)]  # fmt: skip
        assert layouts[0] == layouts[1]


def test_queries_have_their_own_heads_where_keys_and_values_have_fewer():
    frames = walk(PRESETS["llama-3-8b"], "ulysses", p=4)
    (attended,) = (frame for frame in frames if frame.event == "attend")
    assert attended.layout.sizes["heads"] == PRESETS["llama-3-8b"].num_heads == 32
