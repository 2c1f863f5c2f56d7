"""What can't be run is refused before anything is launched, with numbers, rule and way out."""

import itertools

import pytest
from cases import spec

import workbench as wb
from workbench import step
from workbench.dims import Lengths
from workbench.strategies import by_name

VIDEO = spec("time=4 space=6", ("space", "time"), heads=6, d_model=24)
JOINT = spec("time=4 space=6", (("space", "time"), "time"), heads=6, d_model=24)
CALLS = [wb.fake_step, wb.run_step, wb.closed_form_bytes]

REFUSALS = [
    (VIDEO, "ulysses", {"p": 4}, ["ulysses", "num_heads=6", "p=4", "multiple of p", "ring, dsp"]),
    (VIDEO, "megatron-tp", {"p": 4}, ["megatron-tp", "num_heads=6", "p=4", "multiple of p"]),
    (VIDEO, "megatron-sp", {"p": 5}, ["megatron-sp", "num_heads=6", "p=5", "multiple of p"]),
    (JOINT, "dsp", {"p": 2}, ["dsp", "('space', 'time')", "['time', 'space']", "none is left",
                              "megatron-tp, megatron-sp, ulysses, ring"]),
    (JOINT, "dsp", {"p": 4}, ["none is left", "would run: ring"]),
    (VIDEO, "dsp", {"p": 0}, ["p (the number of ranks)", "at least 1", "got 0"]),
    (VIDEO, "dsp", {"p": -2}, ["at least 1", "got -2"]),
    (VIDEO, "dsp", {"p": True}, ["at least 1", "got True"]),
    (VIDEO, "dsp", {"p": 2, "shard": "height"}, ["'height'", "['time', 'space']"]),
    (VIDEO, "single", {"p": 1, "shard": "batch"}, ["'batch'", "['time', 'space']"]),
    (VIDEO, "dsp", {"p": 2, "dtype": "float8"}, ["float32, bfloat16, float64", "'float8'"]),
    (VIDEO, "dps", {"p": 2}, ["'dps'", "did you mean 'dsp'", "megatron-sp", "Known"]),
    (VIDEO, "ulises", {"p": 2}, ["did you mean 'ulysses'"]),
    (VIDEO, "xyz", {"p": 2}, ["'xyz'", "Known: single, megatron-tp"]),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_runs(monkeypatch):
    """A launch, or a faked one, would fail differently."""
    monkeypatch.setattr(step, "run_local", None)
    monkeypatch.setattr(step, "RankStep", None)


@pytest.mark.parametrize(
    ("call", "case"),
    list(itertools.product(CALLS, REFUSALS)),
    ids=lambda v: getattr(v, "__name__", None),
)
def test_refusals(call, case):
    model, name, options, words = case
    with pytest.raises(ValueError, match=r".") as caught:
        call(model, name, **options)
    for word in words:
        assert word in str(caught.value), caught.value


def test_a_subclass_is_refused_by_its_own_name():
    class Mine(wb.STRATEGIES["ulysses"]):
        name = "mine"

    with pytest.raises(ValueError, match="mine gives each rank whole attention heads"):
        wb.run_step(VIDEO, Mine, p=4)


@pytest.mark.parametrize("repeats", [0, -1])
def test_a_step_runs_at_least_once(repeats):
    with pytest.raises(ValueError, match="repeats must be an integer of at least 1"):
        wb.run_step(VIDEO, "dsp", p=2, repeats=repeats)


@pytest.mark.parametrize("seed", [-1, 1.5, "a", True, 2**70])
def test_a_seed_is_a_number(seed):
    for call in (wb.fake_step, wb.run_step):
        with pytest.raises(ValueError, match="seed must be an integer of at least 0"):
            call.__wrapped__(VIDEO, "dsp", p=2, seed=seed)


def test_what_would_change_nothing_is_refused():
    with pytest.raises(ValueError, match="autocast computes float32's products in bfloat16"):
        wb.fake_step(VIDEO, "dsp", p=2, dtype="float64", autocast=True)
    with pytest.raises(ValueError, match="single on 2 ranks computes the same on each"):
        wb.fake_step(VIDEO, "single", p=2, fsdp=True)


@pytest.mark.parametrize("timeout_s", [0, -1, float("inf"), float("nan"), 1e10])
def test_a_timeout_is_a_time(timeout_s):
    with pytest.raises(ValueError, match=r"timeout_s must be more than 0 s and at most 2,592,000"):
        wb.run_local(print, 2, timeout_s=timeout_s)


@pytest.mark.parametrize("valid", [None, {"time": 5}, {"time": (1.5,)}, {"time": "1"}])
def test_lengths_are_whole_numbers(valid):
    with pytest.raises(ValueError, match="one whole number for each sample"):
        Lengths.__init__.__wrapped__(object.__new__(Lengths), valid)


def test_a_class_that_is_no_strategy():
    with pytest.raises(ValueError, match="or a subclass of"):
        by_name.__wrapped__(wb.TransformerSpec)


def test_a_phase_that_is_none():
    with pytest.raises(ValueError, match=r"None, 'forward', .*, 'weights'; got 'loss'"):
        step.closed_form_bytes.__wrapped__(VIDEO, "dsp", p=2, phase="loss")


GOOD = {"dims": {"time": 4, "space": 6}, "stages": ("space", "time"), "d_model": 24,
        "num_heads": 6, "num_layers": 1}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dims": {}}, "at least one dim"),
        ({"stages": ()}, "at least one dim and one stage"),
        ({"dims": {"time": 0, "space": 6}}, "size of dim 'time' must be.*at least 1, got 0"),
        ({"dims": {"time": 4, "batch": 6}}, "plain name other than batch.*got 'batch'"),
        ({"dims": {"time": 4, "a b": 6}}, "plain name.*got 'a b'"),
        ({"stages": ("height",)}, r"stage \('height',\).*dims \['time', 'space'\]"),
        ({"stages": (("time", "time"),)}, "each once"),
        ({"stages": ((),)}, "one or more"),
        ({"d_model": 25}, r"d_model=25 is not divisible by num_heads=6.*try d_model=5\*6=30"),
        ({"d_model": 0}, "d_model must be.*got 0"),
        ({"num_heads": 0}, "num_heads must be.*got 0"),
        ({"batch": 0}, "batch must be.*got 0"),
        ({"mlp_ratio": 0}, "mlp_ratio must be.*got 0"),
        ({"num_layers": 0}, "num_layers must be.*got 0"),
    ],
)
def test_a_spec_says_what_is_wrong_with_it(change, message):
    with pytest.raises(ValueError, match=message):
        wb.TransformerSpec(**(GOOD | change))
