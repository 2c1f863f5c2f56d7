"""Activation checkpointing and gradient accumulation: same values, and bytes as predicted."""

import pytest
from test_equal_to_one_device import error, expected
from test_meshes import VIDEO, VOLUME

import workbench as wb
from workbench.outcome import compare
from workbench.rank import rank_step
from workbench.strategies import choose_shard, ranks_of, select

WAYS = [
    {"checkpoint": "block", "switch": "inside"},
    {"checkpoint": "block", "switch": "outside"},
    {"checkpoint": "selective"},
    {"accumulate": 3},
    {"accumulate": 3, "checkpoint": "block"},
]
RUNS = [
    ("megatron-tp", None, {}),
    ("megatron-sp", None, {}),
    ("ulysses", None, {}),
    ("ring", None, {}),
    ("dsp", None, {}),
    ("dsp", None, {"around": "attention"}),
    ("usp", {"ulysses": 1, "ring": 2}, {}),
    ("dsp-dsp", {"outer": 1, "inner": 2}, {}),
    ("dsp-ulysses", {"ulysses": 2, "dsp": 1}, {}),
]


def test_equal_to_one_device_and_as_predicted():
    cases = [(way, *run) for way in WAYS for run in RUNS]

    def on_rank(rank, comm):
        results = []
        for way, name, mesh, options in cases:
            cls = select(name, VIDEO, 2, mesh, **options)
            results.append(rank_step(comm, VIDEO, cls, "float64", 0, "time", mesh=mesh, **way))
            results[-1]["log"] = list(comm.log)
        return results

    ranks = wb.run_local(on_rank, 2)
    output, loss, gradients = expected(VIDEO, "float64")
    for i, (way, name, mesh, options) in enumerate(cases):
        cls = select(name, VIDEO, 2, mesh, **options)
        ranks_of(cls, 2, mesh)
        shard = choose_shard(cls, VIDEO, 2, VIDEO.branches, "time") if mesh is None else "time"
        run = {"dtype": "float64", "shard": shard}
        step = compare([results[i] for results in ranks], VIDEO, cls, {**run, "seed": 0}, 0.0)
        assert error({"y": step.output}, {"y": output}) <= 1e-10, (name, way)
        assert error(step.gradients, gradients) <= 1e-10, (name, way)
        assert step.loss == pytest.approx(loss, rel=1e-10), (name, way)
        run |= {"p": 2, "mesh": mesh, **options, **way}
        assert wb.fake_step(VIDEO, name, **run).log == step.log, (name, way)
        predicted = [
            wb.closed_form_bytes(VIDEO, name, phase=phase, **run)
            for phase in ("forward", "backward", "gradients")
        ]
        assert predicted == [step.forward_bytes, step.backward_bytes, step.gradient_bytes], (
            name, way,
        )  # fmt: skip


def slope(name, **how):
    """Bytes of one more layer, in M / p times (p-1)/p."""
    steps = [
        wb.fake_step(
            wb.TransformerSpec(
                dims={"time": 8, "space": 8}, stages=("space", "time"), d_model=16, num_heads=4,
                num_layers=layers,
            ), name, p=4, shard="time", **how,
        ).sent_bytes
        for layers in (1, 2)
    ]  # fmt: skip
    m = 8 * 8 * 16 * 4
    return (steps[1] - steps[0]) / (m / 4 * 3 / 4)


def test_dsp_sends_4m_over_n_a_step_and_6m_over_n_if_the_switch_is_computed_again():
    """Source: the factors are those of arXiv:2403.10266's table, backward and recomputed."""
    assert slope("dsp") == 4
    assert slope("dsp", checkpoint="block", switch="outside") == 4
    assert slope("dsp", checkpoint="selective") == 4
    assert slope("dsp", checkpoint="block", switch="inside") == 6
    assert slope("ulysses", checkpoint="block", switch="outside") == 12


def test_checkpointing_saves_memory():
    deep = wb.TransformerSpec(
        dims={"time": 16, "space": 64}, stages=("space", "time"), d_model=64, num_heads=4,
        num_layers=8, batch=8,
    )  # fmt: skip
    peak = {
        how: wb.fake_step(deep, "dsp", p=4, checkpoint=how).peak_bytes
        for how in ("none", "selective", "block")
    }
    assert peak["block"] < 0.6 * peak["selective"]
    assert peak["selective"] < 0.8 * peak["none"]
    flops = [wb.fake_step(deep, "dsp", p=4, checkpoint=how).flops for how in ("none", "block")]
    assert flops[1] == pytest.approx(flops[0] * 4 / 3)


def test_accumulating_saves_memory_and_sums_gradients_once():
    whole, parts = (wb.fake_step(VOLUME, "dsp", p=2, accumulate=n) for n in (1, 2))
    assert parts.gradient_bytes == whole.gradient_bytes
    assert parts.sent_bytes == whole.sent_bytes
    assert parts.peak_bytes < whole.peak_bytes
    with pytest.raises(ValueError, match="accumulate=2 must divide the 3 samples"):
        wb.fake_step(VIDEO, "dsp", p=2, accumulate=2)


@pytest.mark.parametrize(
    "wrong", [{"checkpoint": "all"}, {"switch": "around"}], ids=lambda wrong: next(iter(wrong))
)
def test_wrong_choices_are_told(wrong):
    with pytest.raises(ValueError, match="must be one of"):
        wb.closed_form_bytes(VIDEO, "dsp", p=2, **wrong)
