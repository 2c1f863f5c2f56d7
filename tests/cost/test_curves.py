"""What would change the answer: crossovers, sensitivity, scaling with its band, sweeps."""

from dataclasses import replace
from itertools import pairwise

import pytest

import workbench as wb
from workbench import published
from workbench.planner import band_of, crossover, scaling, sensitivity, sweep, validated

VIDEO = replace(wb.PRESETS["stdit-xl-2"], num_layers=4)
BOX = wb.CLUSTERS["dgx-h100"]


def test_crossover_is_where_the_faster_changes():
    found = crossover(VIDEO, BOX, "megatron-tp", "megatron-sp", p=8, vary="space",
                      values=[16, 64, 1024])  # fmt: skip
    times = {
        name: [
            wb.predict(replace(VIDEO, dims={"time": 80, "space": s}), name, BOX, p=8).seconds
            for s in (16, 64, 1024)
        ]
        for name in ("megatron-tp", "megatron-sp")
    }
    faster = ["sp" if sp < tp else "tp" for tp, sp in zip(*times.values(), strict=True)]
    changes = sum(a != b for a, b in pairwise(faster))
    assert len(found) == changes


def test_sensitivity_has_signs_that_make_sense():
    found = {s.name: s.elasticity for s in sensitivity(VIDEO, "megatron-sp", BOX, p=8)}
    assert found["matmul"] < 0
    assert found["intra_bandwidth"] < 0
    assert found["inter_bandwidth"] == 0
    assert found["latency"] > 0
    assert 0.9 < found["time"] < 1.1  # all is linear in it but a little attention
    assert found["space"] > found["time"]
    assert "p" in found


def test_scaling():
    strong = scaling(VIDEO, "dsp", BOX, ps=[1, 8, 64, 4096])
    assert strong[0].efficiency == 1
    assert [p.efficiency for p in strong] == sorted((p.efficiency for p in strong), reverse=True)
    weak = scaling(VIDEO, "dsp", BOX, ps=[1, 8], weak="time")
    assert weak[1].efficiency > strong[1].efficiency


def test_a_band_is_what_errors_were_and_nothing_else():
    found = [0.04, -0.1, 0.0, 0.25, -0.02]
    band = band_of(found, checked_to=2, source="five steps")
    assert (band.low, band.high) == (0.9, 1.25)
    assert band.level == pytest.approx(4 / 6)
    (point,) = scaling(VIDEO, "dsp", BOX, ps=[8], band=band)
    assert (point.low_s, point.high_s) == (0.9 * point.cost.seconds, 1.25 * point.cost.seconds)
    for too_few in ([], [0.1], [-1.0, 0.0]):
        with pytest.raises(ValueError, match="two errors or more"):
            band_of(too_few, checked_to=2, source="")


def test_the_validated_band_holds_every_published_speed_that_was_not_fitted():
    band = validated()
    free = [row for row in (*published.table(), *published.peers()) if not row.fitted]
    faster = [row.speed_ratio for row in free if row.speed_ratio is not None]
    assert band.low == pytest.approx(min(faster))
    assert band.high == pytest.approx(max(faster))
    assert band.level == pytest.approx((len(faster) - 1) / (len(faster) + 1))
    assert {row.unit for row in free if row.speed_ratio is None} == {"times", "K tokens"}
    times = [row for row in free if row.unit in ("s", "s an iteration")]
    expected = [row.published / row.ours for row in times]
    assert [row.speed_ratio for row in times] == pytest.approx(expected)
    assert len(times) == 5
    used = published.left_out()  # constants were fitted to their neighbours: not so far off
    assert band.low - 1 < min(used) < max(used) < band.high - 1
    assert "32 A100" in " ".join(row.case for row in free)
    assert band.checked_to == 32
    (point,) = scaling(VIDEO, "dsp", BOX, ps=[8])
    assert point.band == band


def test_sweeps_leave_out_what_cannot_run():
    rows = sweep([VIDEO], ["dsp", "ulysses"], [BOX, wb.CLUSTERS["8x-4090"]], [8, 32])
    assert len(rows) == 8
    ran = {(name, cluster.name, p) for _, name, cluster, p, _, cost in rows if cost}
    assert ran == {("dsp", "dgx-h100", 8), ("dsp", "8x-4090", 8), ("dsp", "dgx-h100", 32),
                   ("ulysses", "dgx-h100", 8), ("ulysses", "8x-4090", 8)}  # fmt: skip

    lazy = sweep([VIDEO], iter(["dsp"]), iter([BOX]), iter([8, 4]),
                 iter([{}, {"checkpoint": "block"}]))  # fmt: skip
    assert len(lazy) == 4


def test_a_word_that_no_strategy_knows_is_no_reason_to_leave_out():
    with pytest.raises(ValueError, match="unknown strategy 'dps'; did you mean"):
        sweep([VIDEO], ["dsp", "dps"], [BOX], [8])
    with pytest.raises(ValueError, match="has no option 'scheduel'"):
        sweep([VIDEO], ["ring", "dsp"], [BOX], [8], [{"scheduel": "lazy"}])
    mixed = sweep([VIDEO], ["ring", "dsp"], [BOX], [8], [{"schedule": "eager"}])
    assert [cost is None for *_, cost in mixed] == [True, False]
    for change in ({"first": "dps"}, {"second": "dps"}, {"checkpoint": "blok"}):
        asked = {"first": "dsp", "second": "ring", "p": 8, "vary": "time", "values": [16]}
        with pytest.raises(ValueError, match=r"dps|checkpoint must be one of"):
            crossover(VIDEO, BOX, **asked | change)


def test_equals_are_no_crossover():
    both = [("dsp", "ulysses"), ("ulysses", "dsp")]
    found = [crossover(VIDEO, BOX, *pair, p=8, vary="p", values=[1, 2, 4]) for pair in both]
    assert found == [[], []]  # on one device no one is faster


def test_an_elasticity_is_of_the_change_that_was_made():
    small = replace(VIDEO, dims={"time": 4, "space": 256}, batch=1)
    found = {s.name: s for s in sensitivity(small, "dsp", BOX, p=4, factor=1.3)}
    assert {"batch", "p", "matmul"} & found.keys() == {"p", "matmul"}  # 1.3 samples are 1
    assert found["time"].factor == 5 / 4
    for factor in (0, 1, -1, float("nan")):
        with pytest.raises(ValueError, match="above 0 and not 1"):
            sensitivity(small, "dsp", BOX, p=4, factor=factor)
    with pytest.raises(ValueError, match="weak='weather': it is None, 'batch' or one of time"):
        scaling(small, "dsp", BOX, ps=[1, 2], weak="weather")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"options": [{"accumulate": 0}]}, "accumulate must be"),
        (
            {"options": [{"mesh": {"ulyses": 2, "ring": 2}}]},
            "it says how many ranks there are along",
        ),
        ({"options": [{"mesh": [2, 2]}]}, "it says how many ranks there are along"),
        ({"ps": [0]}, "p .the number of ranks. must be"),
        ({"ps": ["4"]}, "p .the number of ranks. must be"),
        ({"specs": [VIDEO, "toy-video"]}, "a TransformerSpec is needed; got 'toy-video'"),
        ({"clusters": [BOX, "dgx-h100"]}, "a Cluster is needed; got 'dgx-h100'"),
    ],
)
def test_nonsense_is_no_configuration_that_cannot_run(changed, words):
    given = {"specs": [VIDEO], "strategies": ["dsp"], "clusters": [BOX], "ps": [4]} | changed
    with pytest.raises(ValueError, match=words):
        sweep.__wrapped__(**given)


def test_sweeps_take_the_meshes_that_plans_have():
    mesh = {"data": 2, "megatron-sp": 4}
    row = sweep([replace(VIDEO, batch=2)], ["megatron-sp"], [BOX], [8], [{"mesh": mesh}])[0]
    alone = wb.predict(replace(VIDEO, batch=2), "megatron-sp", BOX, p=8, mesh=mesh)
    assert row[-1].seconds == alone.seconds


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: crossover(VIDEO, BOX, "dsp", "ring", p=8, vary="tim", values=[]), "cannot vary"),
        (lambda: crossover(VIDEO, BOX, "dsp", "ring", p=8, vary="time", values=[8, 8.5]), "whole"),
        (lambda: scaling(VIDEO, "dsp", BOX, ps=[0, 1], weak="time"), "must be"),
        (lambda: sensitivity.__wrapped__(VIDEO, "dsp", BOX, p=8, factor="2"), "how many times"),
        (lambda: band_of([float("nan"), 0.2], checked_to=2, source="x"), "two errors or more"),
    ],
)
def test_numbers_that_none_can_be_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
