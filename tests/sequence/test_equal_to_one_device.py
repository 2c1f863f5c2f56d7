"""Every strategy equals one device, in values and gradients, and sends what was predicted."""

import functools

import pytest
import reference
import torch
from cases import GRID, SPECS, closed_forms, combinations, counted, run_all, spec
from hypothesis import given, settings
from hypothesis import strategies as st

import workbench as wb
from workbench.dims import Stage
from workbench.rank import sample, text
from workbench.strategies import STRATEGIES
from workbench.transformer import initial_weights

BOUND = {"float64": 1e-10, "float32": 1e-5}


@functools.cache
def expected(model, dtype):
    weights = initial_weights(model, dtype=dtype)
    here = torch.device("cpu")
    inputs = (draw(model, 0, dtype, here) for draw in (sample, text))
    return reference.step(model, weights, *inputs)


def error(found, truth):
    largest = max(t.abs().max() for t in truth.values())
    return max((found[name] - t).abs().max() / largest for name, t in truth.items())


def hold(case, step, dtype, bound=None):
    """Assert that a real step equals the reference and that its bytes are as predicted."""
    model, name, shard = case
    output, loss, gradients = expected(model, dtype)
    bound = bound or BOUND[dtype]
    assert step.gradients.keys() == gradients.keys()
    assert error({"y": step.output}, {"y": output}) <= bound, case
    assert error(step.gradients, gradients) <= bound, case
    assert abs(step.loss - loss) <= bound * abs(loss), case
    assert step.max_error <= bound
    assert step.grad_error <= bound
    options = {"p": step.p, "dtype": dtype, "shard": shard}
    if dtype == "float64" and step.p in (2, 3):  # divides most sizes, and fewest
        assert wb.fake_step(model, name, **options).log == step.log, case
    assert counted(step) == closed_forms(model, name, **options), case
    assert closed_forms(model, name, **options)[:2] == [step.forward_bytes, step.backward_bytes]
    assert wb.closed_form_bytes(model, name, **options) == step.sent_bytes


@pytest.mark.parametrize(("p", "dtype"), GRID)
def test_table_of_cases(p, dtype):
    # Which dim is cut first changes no rounding, and no dtype the order of collectives: the choices
    # are gone through in one dtype, for the p that divides fewest sizes.
    cases = list(combinations(p, every_shard=dtype == "float64" and p == 3))
    for case, step in zip(cases, run_all(cases, p, dtype), strict=True):
        hold(case, step, dtype)


@st.composite
def models(draw):
    """What makes a model of one to three dims, with sizes smaller and larger than p."""
    names = ["a", "b", "c"][: draw(st.integers(1, 3))]
    stage = st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True)
    return {
        "dims": {name: draw(st.integers(1, 6)) for name in names},
        "stages": [tuple(s) for s in draw(st.lists(stage, min_size=1, max_size=3))],
        "d_model": 24,
        "num_heads": draw(st.sampled_from([1, 4, 6, 12])),
        "num_layers": draw(st.integers(1, 3)),
        "batch": draw(st.integers(1, 3)),
        "mlp_per": draw(st.sampled_from(["stage", "layer"])),
        "mlp_ratio": draw(st.integers(1, 4)),
    }


@settings(max_examples=5)
@given(st.lists(models(), min_size=5, max_size=5), st.integers(2, 4))
def test_any_model(specs, p):
    specs = [wb.TransformerSpec(**model) for model in specs]
    cases = list(combinations(p, specs))
    for case, step in zip(cases, run_all(cases, p, "float64"), strict=True):
        hold(case, step, "float64")


@pytest.mark.parametrize("p", [2, 3])
def test_bfloat16_is_as_close_as_its_own_rounding(p):
    even = spec("time=4 space=6", ("space", "time"), layers=2, heads=6, d_model=48)
    cases = list(combinations(p, [even, *SPECS[3:5], SPECS[7]]))
    for case, step in zip(cases, run_all(cases, p, "bfloat16"), strict=True):
        exact = expected(case[0], "float64")
        assert step.output.dtype == torch.bfloat16
        assert error({"y": step.output.double()}, {"y": exact[0]}) < 0.03, case
        found = {name: t.double() for name, t in step.gradients.items()}
        assert error(found, exact[2]) < 0.05, case
        options = {"p": p, "dtype": "bfloat16"}
        assert wb.fake_step(*case[:2], **options).log == step.log, case
        assert counted(step) == closed_forms(*case[:2], **options), case


def test_strided_heads_go_round_the_ring():
    """Hooks get tensors as they come: transposed ones give the same result."""

    def on_rank(rank, comm):
        model = spec("time=4 space=6", ("space", "time"), heads=4, d_model=16)
        results = []
        for name in ("ring", "ulysses"):
            strategy = STRATEGIES[name](comm, model, "time")
            shape = model.heads(strategy.start).local_shape(comm.size)
            parts = torch.randn(3, *shape, generator=torch.Generator().manual_seed(rank))
            strided = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in parts]
            assert not strided[0].is_contiguous()
            plain = strategy.attend(*parts, strategy.start, Stage("time"))
            odd = strategy.attend(*strided, strategy.start, Stage("time"))
            results.append((plain - odd).abs().max().item())
        return results

    assert max(max(errors) for errors in wb.run_local(on_rank, 2)) <= 1e-6
