"""Plans: all that can be tried, ranked, with the reasons of those that don't fit."""

import json
import math
from dataclasses import replace
from itertools import pairwise

import pytest

import workbench as wb
from workbench.__main__ import main
from workbench.planner import (
    band_of,
    crossover,
    pareto,
    plan,
    scaling,
    sensitivity,
    sweep,
    validated,
)
from workbench.planner.budget import memory_estimate, rank_memory
from workbench.planner.candidates import candidates
from workbench.published import BARS, left_out
from workbench.published.figure3 import errors

VIDEO = replace(wb.PRESETS["stdit-xl-2"], num_layers=4)
BOX = wb.CLUSTERS["dgx-h100"]


def test_plans_are_ranked_and_reasons_given():
    plans = plan(VIDEO, BOX, p=8)
    fits = [q for q in plans if q.fits]
    assert plans[: len(fits)] == fits == sorted(fits, key=lambda q: q.seconds)
    assert {q.strategy for q in fits} >= {"dsp", "ulysses", "ring", "megatron-sp", "usp"}
    assert {q.checkpoint for q in fits} == {"none", "selective", "block"}
    assert {q.fsdp for q in fits} == {False, True}
    for q in fits:
        cost = wb.predict(VIDEO, q.strategy, BOX, p=8, mesh=q.mesh, checkpoint=q.checkpoint,
                          fsdp=q.fsdp, **q.options)  # fmt: skip
        assert q.seconds == pytest.approx(cost.seconds)
        assert q.binds
        assert q.reason.startswith(q.binds)
    smallest = plan(VIDEO, BOX, p=8, objective="memory_bytes")
    assert smallest[0].memory_bytes == min(q.memory_bytes for q in fits)


def test_refusals_are_plans_that_do_not_fit():
    refused = [q for q in plan(VIDEO, BOX, p=3) if not q.fits]
    assert {q.strategy for q in refused} == {"ulysses", "megatron-sp", "megatron-tp"}
    for q in refused:
        assert "num_heads=16, p=3" in q.reason
        assert math.isinf(q.seconds)
        assert q.memory_bytes is None


def test_too_little_memory_says_what_would_fit():
    plans = plan(VIDEO, BOX, p=8, strategies=["dsp"])
    sizes = sorted(q.memory_bytes for q in plans)
    tight = plan(VIDEO, BOX, p=8, strategies=["dsp"], memory_bytes=sizes[1])
    assert sum(q.fits for q in tight) == 2
    for q in tight[2:]:
        assert "needs" in q.reason
        assert f"checkpoint={tight[0].checkpoint!r}" in q.reason
    none = plan(VIDEO, BOX, p=8, strategies=["dsp"], memory_bytes=1)
    assert all("more ranks" in q.reason for q in none)


def test_candidates_have_both_orders_of_a_mesh_and_data_outside():
    found = [dict(c.mesh) for c in candidates(replace(VIDEO, batch=2), 8) if c.strategy == "usp"]
    assert {"ulysses": 4, "ring": 2} in found
    assert list(found[0]) == ["ulysses", "ring"]
    assert ["ring", "ulysses"] in [list(mesh) for mesh in found]
    assert {"data": 2, "ulysses": 2, "ring": 2} in found
    alone = [dict(c.mesh) for c in candidates(replace(VIDEO, batch=4), 4) if c.strategy == "single"]
    assert alone == [{"data": 4}]
    causal = wb.PRESETS["llama-3-8b"]
    assert {c.options.get("order") for c in candidates(causal, 4) if c.strategy == "ring"} == {
        "zigzag"
    }


@pytest.mark.parametrize("name", ["dsp", "ulysses", "ring", "megatron-sp", "megatron-tp"])
@pytest.mark.parametrize("checkpoint", ["none", "block", "selective"])
def test_memory_is_near_the_faked_peak(name, checkpoint):
    model = replace(VIDEO, dims={"time": 16, "space": 1024})
    given = {"p": 4, "dtype": "bfloat16", "checkpoint": checkpoint}
    faked = wb.fake_step(model, name, **given).peak_bytes
    optimizer = 2 * 2 * model.parameters / (4 if "megatron" in name else 1)
    assert memory_estimate(model, name, **given) == pytest.approx(faked + optimizer, rel=0.4)


def test_memory_is_exact_where_there_is_a_closed_form():
    given = {"p": 4, "dtype": "bfloat16", "checkpoint": "block"}
    held, exact = rank_memory(VIDEO, "dsp", **given)
    faked = wb.fake_step(VIDEO, "dsp", **given).peak_bytes
    assert exact
    assert 0 < held - faked - 4 * VIDEO.parameters < 1000  # a counter for each weight
    assert rank_memory(replace(VIDEO, positions="learned"), "dsp", **given)[1] is False
    assert rank_memory(VIDEO, "dsp", **given, mode="inference")[0] < held
    plans = plan(VIDEO, BOX, p=4, strategies=["dsp"])
    assert {(q.fsdp, q.memory_exact) for q in plans} == {(False, True), (True, True)}


def test_what_binds():
    slow = replace(BOX, oversubscription=50.0)
    assert plan(VIDEO, slow, p=16, strategies=["megatron-sp"])[0].binds == "NIC"
    assert plan(VIDEO, BOX, p=1)[0].binds == "compute"
    weak = replace(BOX, device=replace(BOX.device, memory_bytes_per_s=1e10))
    assert plan(VIDEO, weak, p=1)[0].binds == "memory"


def test_pareto_front_has_no_beaten_plan():
    plans = plan(VIDEO, BOX, p=8)
    front = pareto(plans)
    assert front[0].seconds == plans[0].seconds
    for q in front:
        beats = (
            r.seconds < q.seconds and r.memory_bytes <= q.memory_bytes for r in plans if r.cost
        )
        assert not any(beats)


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


def test_the_validated_band_holds_the_errors_of_bars_that_were_left_out():
    band = validated()
    assert (band.level, band.checked_to) == (11 / 13, 8)
    ends = band.low - 1, band.high - 1
    left = left_out([[bar for bar in BARS if bar.sp == 8]])
    assert ends[0] <= min(left) < max(left) <= ends[1]
    used = errors(BARS)  # with all bars in the fit: too good to say how far off others may be
    assert ends[0] < min(used) < max(used) < ends[1]
    (point,) = scaling(VIDEO, "dsp", BOX, ps=[8])
    assert point.band == band


def test_sweeps_leave_out_what_cannot_run():
    rows = sweep([VIDEO], ["dsp", "ulysses"], [BOX, wb.CLUSTERS["8x-4090"]], [8, 32])
    assert len(rows) == 8
    ran = {(name, cluster.name, p) for _, name, cluster, p, _, cost in rows if cost}
    assert ran == {("dsp", "dgx-h100", 8), ("dsp", "8x-4090", 8), ("dsp", "dgx-h100", 32),
                   ("ulysses", "dgx-h100", 8), ("ulysses", "8x-4090", 8)}  # fmt: skip

    lazy = sweep([VIDEO], iter(["dsp"]), iter([BOX]), iter([8, 4]), iter([{}, {"batch": 1}]))
    assert len(lazy) == 4


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"mode": "bogus"}, "mode must be of train, inference; got 'bogus'"),
        ({"dtype": "int8"}, "dtype must be of float32"),
        ({"gradient_sync": "never"}, "gradient_sync must be of"),
        ({"checkpoints": ("some",)}, "checkpoints must be of none, block, selective; got 'some'"),
        ({"fsdp": ("x",)}, "fsdp must be of False, True, keep; got 'x'"),
        ({"strategies": ["dps"]}, "unknown strategy 'dps'; did you mean 'dsp'"),
        ({"strategies": [type("Own", (wb.Strategy,), {"name": "own"})]}, "own is not one"),
        ({"accumulate": 0}, "accumulate must be"),
        ({"memory_bytes": -5}, "memory_bytes must be a positive number of bytes, got -5"),
        ({"memory_bytes": float("nan")}, "memory_bytes must be"),
        ({"gpus": 8}, "give p, or gpus"),
        ({"p": None}, "give p, or gpus"),
        ({"p": 0}, "p .the number of ranks. must be"),
        ({"cluster": "dgx-h100"}, "a Cluster is needed"),
    ],
)
def test_what_no_plan_could_have_is_refused(asked, words):
    with pytest.raises(ValueError, match=words):
        plan.__wrapped__(VIDEO, **({"cluster": BOX, "p": 8} | asked))


def test_a_strategy_is_given_by_name_or_as_a_class():
    named = plan(VIDEO, BOX, gpus=8, strategies="dsp", checkpoints="none", fsdp=False)
    assert [q.strategy for q in named] == ["dsp"]
    assert named == plan(VIDEO, BOX, p=8, strategies=[wb.STRATEGIES["dsp"]], checkpoints=["none"],
                         fsdp=[False])  # fmt: skip


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


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="objective must be one of"):
        plan(VIDEO, BOX, p=8, objective="happiness")
    with pytest.raises(ValueError, match="cannot vary 'weather'"):
        crossover(VIDEO, BOX, "dsp", "ring", p=8, vary="weather", values=[1])
    with pytest.raises(ValueError, match="p=16 ranks do not fit"):
        plan(VIDEO, wb.CLUSTERS["8x-4090"], p=16)


def test_the_command_prints_the_same_plans(capsys):
    asked = ["plan", "--preset", "timesformer-b", "--cluster", "8x-l40s", "--gpus", "5"]
    assert main([*asked, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    plans = plan(wb.PRESETS["timesformer-b"], wb.CLUSTERS["8x-l40s"], p=5)
    assert rows == json.loads(json.dumps([q.as_dict() for q in plans]))
    assert main(asked) == 0
    table = capsys.readouterr().out
    assert plans[0].strategy in table
    assert "num_heads" in table
    with pytest.raises(SystemExit):
        main([*asked[:-1], "9"])
    assert "do not fit" in capsys.readouterr().err
