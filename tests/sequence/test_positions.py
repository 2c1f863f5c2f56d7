"""Learned and rotary positions are right however the tokens are laid out."""

from dataclasses import replace

import pytest
from cases import combinations, run_all
from test_equal_to_one_device import error, expected, hold
from test_meshes import VIDEO, VOLUME

import workbench as wb
from workbench.dims import Stage
from workbench.outcome import compare
from workbench.rank import rank_step
from workbench.strategies import STRATEGIES, select

JOINT = wb.TransformerSpec(
    dims={"a": 3, "b": 4, "c": 3}, stages=(("c", "a"), Stage("b", causal=True)), d_model=48,
    num_heads=4, num_kv_heads=2, num_layers=1,
)  # fmt: skip
MODELS = [
    replace(model, positions=how, d_model=48, num_heads=4)
    for model in (VIDEO, VOLUME, JOINT)
    for how in ("learned", "rope")
]


def variants(p):
    """Each strategy on each model; rings in each order."""
    for model, name, shard in combinations(p, MODELS):
        yield model, name, shard
        if name == "ring" and p > 1:
            yield model, STRATEGIES["ring"].with_options(order="zigzag"), shard
        if name == "dsp" and p > 1:
            yield model, STRATEGIES["dsp"].with_options(around="attention"), shard


@pytest.mark.parametrize("p", [1, 2, 3])
def test_equal_to_one_device(p):
    cases = list(variants(p))
    for case, step in zip(cases, run_all(cases, p, "float64"), strict=True):
        hold(case, step, "float64")


def test_meshes():
    runs = [("usp", {"ulysses": 2, "ring": 2}), ("dsp-dsp", {"outer": 2, "inner": 2})]
    cases = [(model, *run) for model in MODELS[:4] for run in runs]

    def on_rank(rank, comm):
        return [
            rank_step(comm, model, select(name, model, 4, mesh), "float64", 0, None, mesh=mesh)
            for model, name, mesh in cases
        ]

    ranks = wb.run_local(on_rank, 4)
    for i, (model, name, mesh) in enumerate(cases):
        parts = [results[i] for results in ranks]
        run = {"dtype": "float64", "seed": 0, "shard": None}
        step = compare(parts, model, select(name, model, 4, mesh), run, 0.0)
        output, _, gradients = expected(model, "float64")
        assert error({"y": step.output}, {"y": output}) <= 1e-10, (name, model)
        assert error(step.gradients, gradients) <= 1e-10, (name, model)


def test_places_matter():
    plain, learned, rope = (
        wb.run_step(replace(VIDEO, positions=how, d_model=48, num_heads=4), "single", p=1).output
        for how in ("none", "learned", "rope")
    )
    assert (plain - learned).abs().max() > 1e-3
    assert (plain - rope).abs().max() > 1e-3


def test_tables_are_weights():
    learned = replace(VIDEO, positions="learned")
    more = (5 + 6) * VIDEO.d_model
    assert learned.parameters == VIDEO.parameters + more
    assert sum(w.numel() for w in wb.run_step(learned, "dsp", p=2).gradients.values()) > more


def test_refusals():
    with pytest.raises(ValueError, match="a head's width must be a multiple of 4; got 2"):
        replace(VIDEO, stages=(("time", "space"),), positions="rope")


@pytest.mark.parametrize("how", ["learned", "rope"])
def test_a_zigzag_of_two_entries_is_cut_all_the_same(how):
    """A rank's two runs, padding included, are then as long as the whole dim."""
    model = replace(VIDEO, dims={"time": 2, "space": 6}, positions=how, d_model=48, num_heads=4)
    zigzag = STRATEGIES["ring"].with_options(order="zigzag")
    (step,) = run_all([(model, zigzag, "time")], 2, "float64")
    hold((model, zigzag, "time"), step, "float64")
