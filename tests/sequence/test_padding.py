"""Samples of unequal lengths: padding enters no softmax, loss or gradient, and sends nothing."""

from dataclasses import replace

import pytest
import torch
from cases import run_all
from test_equal_to_one_device import BOUND, error, expected, hold
from test_masks_and_orders import CAUSAL_TIME, spec, variants
from test_meshes import VIDEO

import workbench as wb
from workbench.dims import Dims, Lengths, Stage
from workbench.footprint import closed_form_memory
from workbench.launch import local_device
from workbench.meter import Meter
from workbench.outcome import compare
from workbench.rank import RankStep, rank_step
from workbench.strategies import STRATEGIES, select
from workbench.strategies.padding import padded
from workbench.trace import walk
from workbench.train.task import DIGITS, TrainTask


def lengths(model, **valid):
    return replace(model, valid=valid)


TEXT = {"context_length": 5, "context": "sharded"}
SPECS = [
    lengths(spec(("space", CAUSAL_TIME), 3, 3, time=4, space=6), time=(4, 1, 3), space=(2, 6, 5)),
    lengths(spec((Stage("t", causal=True),), 4, 2, 2, t=11), t=(11, 2)),
    lengths(spec((Stage("t"),), 4, 3, t=7), t=(1, 7, 4)),
    lengths(spec((Stage("t", causal=True, window=3),), 1, 2, t=16), t=(16, 5)),
    lengths(spec((Stage("t", window=4),), 12, 2, t=9), t=(9, 2)),
    lengths(spec((Stage(("a", "b"), causal=True), "b"), 2, 2, a=5, b=3), a=(2, 5), b=(3, 2)),
    lengths(
        replace(spec((("time", "space"), "space"), 4, 2, time=3, space=4), **TEXT),
        space=(4, 1), context=(2, 5),
    ),
]  # fmt: skip


@pytest.mark.parametrize("p", [1, 2, 3, 4])
def test_equal_to_one_device(p):
    cases = list(variants(p, SPECS))
    for case, step in zip(cases, run_all(cases, p, "float64"), strict=True):
        hold(case, step, "float64")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shorter_dtypes(dtype):
    cases = list(variants(2, SPECS[:2]))
    for case, step in zip(cases, run_all(cases, 2, dtype), strict=True):
        exact, found = expected(case[0], "float64"), step.gradients.items()
        bound = BOUND.get(dtype, 0.05)
        assert error({"y": step.output.double()}, {"y": exact[0]}) < bound, case
        assert error({name: t.double() for name, t in found}, exact[2]) < bound, case


MODEL = replace(VIDEO, **TEXT, valid={"time": (5, 1, 3), "space": (2, 6, 5), "context": (4, 1, 5)})
MESHES = [
    ("usp", {"ulysses": 2, "ring": 2}, {"order": "zigzag"}, {}),
    ("dsp-ulysses", {"dsp": 2, "ulysses": 2}, {}, {}),
    ("dsp-dsp", {"outer": 2, "inner": 2}, {}, {"checkpoint": "block"}),
    ("ring", {"data": 2, "sp": 2}, {"order": "striped"}, {"accumulate": 2}),
    ("megatron-sp", {"data": 4, "sp": 1}, {"regather": True}, {}),
]


def test_along_two_axes_and_in_parts():
    """Three samples over two or four ranks: the last ones have nothing but padding."""
    classes = [select(name, MODEL, 4, mesh, **options) for name, mesh, options, _ in MESHES]

    def on_rank(rank, comm):
        results = []
        for cls, (_, mesh, _, how) in zip(classes, MESHES, strict=True):
            results.append(rank_step(comm, MODEL, cls, "float64", 0, "time", mesh=mesh, **how))
            results[-1]["log"] = list(comm.log)
        return results

    ranks = wb.run_local(on_rank, 4)
    output, loss, gradients = expected(MODEL, "float64")
    for i, (name, mesh, options, how) in enumerate(MESHES):
        run = {"dtype": "float64", "shard": "time"}
        step = compare([r[i] for r in ranks], MODEL, classes[i], {**run, "seed": 0}, 0.0)
        assert error({"y": step.output}, {"y": output}) <= 1e-10, name
        assert error(step.gradients, gradients) <= 1e-10, name
        assert step.loss == pytest.approx(loss, rel=1e-10), name
        run |= {"p": 4, "mesh": mesh, **options, **how}
        assert wb.fake_step(MODEL, name, **run).log == step.log, name


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "single"])
def test_bytes_do_not_depend_on_lengths(name):
    whole = replace(MODEL, valid={})
    logs = [wb.fake_step(model, name, p=4).log for model in (MODEL, whole)]
    assert logs[0] == logs[1]
    sent = [wb.closed_form_bytes(model, name, p=4) for model in (MODEL, whole)]
    assert sent[0] == sent[1] == sum(
        r.sent_bytes for r in logs[0] if r.phase in ("forward", "backward")
    )  # fmt: skip


def run_with(comm, name, value):
    """Everything of a step in which all padding of the input and of the texts is ``value``."""
    step = RankStep(comm, MODEL, STRATEGIES[name], "float64", 0, "time", local_device())
    lengths, held = MODEL.valid, step.held(step.strategy.start)
    with torch.no_grad():
        for sample in range(MODEL.batch):
            for dim in (1, 2):
                name = list(MODEL.dims)[dim - 1]
                places = held.layout.held(name, held.rank, held.size)
                for i in range(step.x.shape[dim]):
                    if i >= len(places) or places[i] >= lengths[name][sample]:
                        step.x[sample].select(dim - 1, i).fill_(value)
            whole = step.strategy.text.held("context", comm.rank, comm.size)
            for i, place in enumerate(whole):
                if place >= lengths["context"][sample]:
                    step.context[sample, i] = value
    y, _, loss = step.run()
    raw = step.model(step.x, step.context, MODEL.valid)[0]
    return y, loss, [leaf.grad for _, leaf in step.leaves()], raw.isfinite().all()


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "single"])
def test_what_padding_holds_changes_nothing(name):
    first, other = (
        wb.run_local(lambda rank, comm, value=value: run_with(comm, name, value), 2)
        for value in (0.0, 1e3)
    )
    for a, b in zip(first, other, strict=True):
        assert a[3]
        assert b[3]
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])
        assert all(s.isfinite().all() for s in b[2])
        assert max((s - t).abs().max().item() for s, t in zip(a[2], b[2], strict=True)) < 1e-12


@pytest.mark.parametrize("name", ["dsp", "ring"])
def test_a_real_rank_holds_what_was_faked(name):
    model = replace(MODEL, dims={"time": 8, "space": 32}, batch=2, d_model=48, context_length=0,
                    valid={"time": (8, 3), "space": (32, 7)})  # fmt: skip

    def on_rank(rank, comm):
        step = RankStep(comm, model, STRATEGIES[name], "float32", 0, "time", local_device())
        with Meter(leaf for _, leaf in step.leaves()) as meter:
            step.run()
        return meter.peak_bytes, meter.flops

    faked = wb.fake_step(model, name, p=2, shard="time")
    peak, flops = wb.run_local(on_rank, 2)[0]
    # gloo may hold a collective's buffers a little longer.
    assert faked.peak_bytes <= peak <= 1.1 * faked.peak_bytes
    assert flops == faked.flops


def test_a_key_is_real_along_all_dims_of_the_stage():
    stage = padded(Stage(("a", "b"), causal=True), Lengths({"b": (1, 2)}), Dims({"a": 2, "b": 2}))
    assert stage.real.tolist() == [[True, False, True, False], [True] * 4]
    assert Stage(stage).real is stage.real
    assert stage == Stage(("a", "b"), causal=True)
    assert padded(stage, Lengths({"c": (1,)}), {}) is stage


def test_lengths_are_part_of_a_spec():
    assert replace(MODEL, valid={}) != MODEL
    assert MODEL.real_tokens == 5 * 2 + 1 * 6 + 3 * 5
    assert hash(MODEL) == hash(replace(MODEL))


def test_memory_in_closed_form_leaves_it_to_a_faked_step():
    model = replace(MODEL, context_length=0, valid={"time": (5, 1, 3)})
    with pytest.raises(ValueError, match="valid="):
        closed_form_memory(model, "dsp", p=2)


def test_pictures_show_whole_samples_and_training_has_no_others():
    whole = replace(MODEL, valid={}, context_length=0)
    titles = [[frame.title for frame in walk(m, "dsp", 2, "time")] for m in (MODEL, whole)]
    assert titles[0] == titles[1]
    with pytest.raises(ValueError, match="clips are of one length and have no texts"):
        TrainTask(spec=replace(DIGITS, valid={"time": (1,) * DIGITS.batch}))


@pytest.mark.parametrize(
    ("valid", "message"),
    [
        ({"height": (1, 1, 1)}, "lengths along 'height'; this model has time, space"),
        ({"context": (1, 1, 1)}, "lengths along 'context'; this model has time, space"),
        ({"time": (1, 1)}, r"1 to 5 along 'time' for each of 3 samples; got \(1, 1\)"),
        ({"time": (1, 6, 1)}, "a length of 1 to 5 along 'time'"),
        ({"time": (1, 0, 1)}, "a length of 1 to 5 along 'time'"),
    ],
)
def test_refusals(valid, message):
    with pytest.raises(ValueError, match=message):
        replace(VIDEO, valid=valid)
