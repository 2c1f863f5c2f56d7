"""Plans: all that can be tried, ranked, with the reasons of those that don't fit."""

import json
import math
import re
from dataclasses import replace

import pytest

import workbench as wb
from workbench.__main__ import main
from workbench.footprint.budget import memory_estimate, rank_memory
from workbench.planner import (
    crossover,
    pareto,
    plan,
)
from workbench.planner.candidates import candidates
from workbench.strategies import DSP

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
        assert re.search(r"checkpoint='\w+'|fsdp=True", q.reason)
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


def test_micro_batches_are_ranked_too():
    four = replace(VIDEO, batch=4)
    only = {"strategies": ["dsp"], "meshes": False, "checkpoints": "none", "fsdp": False}
    plans = plan(four, BOX, p=8, accumulate=(1, 2, 4), **only)
    assert [q.accumulate for q in plans] == [1, 2, 4]  # the fewer, the faster
    sizes = [q.memory_bytes for q in plans]
    assert sizes == sorted(sizes, reverse=True)
    tight = plan(four, BOX, p=8, memory_bytes=sizes[1], **only)
    assert [(q.accumulate, q.fits) for q in tight] == [(2, True), (4, True), (1, False)]
    assert tight[-1].reason.endswith("accumulate=2 would fit")
    roomy = plan(four, BOX, p=8, **only)
    assert [q.accumulate for q in roomy] == [1, 4]  # 2 is slower than 1, which fits already
    (alone,) = plan(four, BOX, p=8, accumulate=2, **only)
    assert alone == plans[1]
    (no,) = plan(four, BOX, p=8, accumulate=(3,), **only)
    assert not no.fits
    assert "accumulate=3 must divide" in no.reason
    refused = [q.reason for q in plan(VIDEO, BOX, p=4, accumulate=3) if q.strategy == "megatron-tp"]
    assert all("accumulate=3 must divide" in reason for reason in refused)
    assert {q.accumulate for q in plan(four, BOX, p=8, mode="inference", **only)} == {1}
    data = plan(four, BOX, p=8, strategies=["dsp"], checkpoints="none", fsdp=False)
    cut = {q.accumulate for q in data if q.mesh and q.mesh.get("data") == 2}
    assert cut == {1, 2}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"mode": "bogus"}, "mode must be of train, inference; got 'bogus'"),
        ({"dtype": "int8"}, "dtype must be of float32"),
        ({"gradient_sync": "never"}, "gradient_sync must be one of"),
        ({"checkpoints": ("some",)}, "checkpoints must be of none, block, selective; got 'some'"),
        ({"fsdp": ("x",)}, "fsdp must be of False, True, keep; got 'x'"),
        ({"strategies": ["dps"]}, "unknown strategy 'dps'; did you mean 'dsp'"),
        ({"strategies": [type("Own", (wb.Strategy,), {"name": "own"})]}, "Own is none of these"),
        ({"strategies": [DSP.with_options(schedule="eager")]}, "DSP is none of these"),
        ({"checkpoints": []}, "checkpoint: nothing to try"),
        ({"fsdp": []}, "fsdp: nothing to try"),
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


def test_planning_that_takes_long_shows_a_bar(monkeypatch, capfd):
    plan(VIDEO, BOX, p=2, meshes=False)
    assert capfd.readouterr().err == ""
    monkeypatch.setattr("workbench.planner.candidates._PATIENCE_S", 0.0)
    plan(VIDEO, BOX, p=2, meshes=False)
    assert "planning" in capfd.readouterr().err
