"""Cross-attention to a text whose tokens are cut over the ranks: equal to one device, counted."""

from dataclasses import replace

import pytest
import torch
from cases import combinations, counted, run_all
from test_equal_to_one_device import error, expected, hold
from test_meshes import VIDEO, VOLUME

import workbench as wb
from workbench.comm import Comm
from workbench.launch import local_device
from workbench.outcome import compare
from workbench.rank import RankStep, rank_step, text
from workbench.step import closed_form_bytes
from workbench.strategies import STRATEGIES, select
from workbench.trace import walk

TEXT = {"context_length": 7, "context": "sharded"}
MODELS = [
    replace(VIDEO, **TEXT),
    replace(VOLUME, **TEXT | {"context_length": 2}, num_kv_heads=2, mlp_per="layer"),
]
PARALLEL = [name for name in STRATEGIES if name != "single"]
MESHES = [
    ("usp", {"ulysses": 2, "ring": 2}, {}),
    ("dsp-ulysses", {"dsp": 2, "ulysses": 2}, {}),
    ("dsp-dsp", {"outer": 2, "inner": 2}, {}),
    ("dsp", {"data": 2, "sp": 2}, {}),
    ("megatron-sp", {"data": 2, "sp": 2}, {"regather": True}),
]


@pytest.mark.parametrize("p", [1, 2, 3, 4])
def test_equal_to_one_device(p):
    cases = list(combinations(p, MODELS))
    for case, step in zip(cases, run_all(cases, p, "float64"), strict=True):
        hold(case, step, "float64")


def test_along_two_axes():
    model, classes = MODELS[0], []
    for name, mesh, options in MESHES:
        classes.append(select(name, model, 4, mesh, **options))

    def on_rank(rank, comm):
        results = []
        for cls, (_, mesh, _) in zip(classes, MESHES, strict=True):
            results.append(rank_step(comm, model, cls, "float64", 0, "time", mesh=mesh))
            results[-1]["log"] = list(comm.log)
        return results

    ranks = wb.run_local(on_rank, 4)
    output, _, gradients = expected(model, "float64")
    for i, (name, mesh, options) in enumerate(MESHES):
        run = {"dtype": "float64", "shard": "time"}
        step = compare([r[i] for r in ranks], model, classes[i], {**run, "seed": 0}, 0.0)
        assert error({"y": step.output}, {"y": output}) <= 1e-10, name
        assert error(step.gradients, gradients) <= 1e-10, name
        run |= {"p": 4, "mesh": mesh, **options}
        assert wb.fake_step(model, name, **run).log == step.log, name
        assert counted(step) == [
            closed_form_bytes(model, name, phase=phase, **run)
            for phase in ("forward", "backward", "gradients")
        ], name


@pytest.mark.parametrize(
    "how",
    [{"checkpoint": "block", "accumulate": 3}, {"fsdp": True}],
    ids=lambda how: next(iter(how)),
)
def test_with_less_memory(how):
    step = wb.run_step(MODELS[0], "ring", p=2, dtype="float64", **how)
    assert step.max_error < 1e-12
    assert step.grad_error < 1e-12
    faked = wb.fake_step(MODELS[0], "ring", p=2, dtype="float64", **how)
    assert faked.log == step.log
    assert faked.sent_bytes == wb.closed_form_bytes(MODELS[0], "ring", p=2, dtype="float64", **how)


@pytest.mark.parametrize("name", PARALLEL)
def test_bytes_of_the_text(name):
    """Keys and values go there and back once each cross-attention; Megatron's text just there."""
    model = replace(VIDEO, **TEXT | {"context_length": 8}, num_kv_heads=4)
    p, crossings = 4, 2 * model.num_layers
    whole, cut = (
        wb.fake_step(m, name, p=p, shard="time")
        for m in (replace(model, context="replicated"), model)
    )
    texts = model.batch * 8 * 4 * (p - 1) // p  # bytes a channel
    more = [cut.forward_bytes - whole.forward_bytes, cut.backward_bytes - whole.backward_bytes]
    if name.startswith("megatron"):
        assert more == [crossings * texts * model.d_model, 0]
    else:
        assert more == [crossings * texts * 2 * model.kv_heads * model.channel] * 2
        # Each rank projects an eighth of the text or two of eight tokens, not all of it.
        widths = 2 * 2 * model.d_model * model.kv_heads * model.channel
        saved = crossings * 2 * model.batch * (8 - 2) * widths
        assert whole.flops - cut.flops == saved
    assert cut.gradient_bytes == whole.gradient_bytes


def test_padding_of_the_text_is_seen_by_nobody():
    """Rank 3 of 4 has nothing but padding of 3 tokens; whatever it holds there, all is the same."""
    model = replace(VIDEO, **TEXT | {"context_length": 3})
    first, spoilt = (wb.run_local(lambda _, comm, s=s: spoil(comm, model, s), 4) for s in (0, 1e6))
    assert all(torch.equal(a, b) for a, b in zip(first, spoilt, strict=True))


def spoil(comm, model, value):
    step = RankStep(comm, model, STRATEGIES["dsp"], "float64", 0, "time", local_device())
    assert step.context.shape[1] == 1
    if comm.rank == 3:
        assert not step.context.any()
        step.context.fill_(value)
    step.run()
    return torch.cat([w.grad.flatten() for _, w in step.model.named_weights()])


def test_a_rank_holds_its_part():
    whole = text(MODELS[0], 0, "float32", torch.device("cpu"))
    assert whole.shape == (3, 7, 24)
    strategy = STRATEGIES["dsp"](Comm(4, rank=1), MODELS[0], "time")
    assert str(strategy.text) == "[B, C/sp, M]"
    assert list(strategy.text.held("context", 1, 4)) == [2, 3]


def test_pictures_leave_it_out():
    titles = [[f.title for f in walk(m, "dsp", 2, "time")] for m in (VIDEO, MODELS[0])]
    assert titles[0] == titles[1]


def test_refusals():
    with pytest.raises(ValueError, match=r"a plain name other than .*, context; got 'context'"):
        replace(VIDEO, dims={"context": 4}, stages=("context",))
