"""DSP's schedules of switches: fewest switches and fewest bytes, against brute force."""

import itertools
import random
from dataclasses import replace
from math import ceil, prod

import pytest
from cases import run_all, spec
from test_equal_to_one_device import hold

import workbench as wb
from workbench import step
from workbench.geometry import Geometry
from workbench.strategies import DSP, STRATEGIES, Ulysses
from workbench.strategies.schedule import SCHEDULES, switches
from workbench.units import human_bytes

NAMES = "abcd"
#: K dims, stages visited unevenly or jointly, sizes that p does not divide or exceeds.
UNEVEN = [
    spec("a=3 b=4 c=5", ("a", "b", "c"), layers=3, heads=4, batch=2),
    spec("a=4 b=2 c=1 d=3", ("d", "a", "c", "b"), layers=2, heads=4),
    spec("row=5 column=3", ("column", "row"), layers=2, batch=2),
    spec("a=5 b=3 c=2", ("a", "a", "c", "b", "b"), layers=2, mlp_per="layer"),
    spec("a=2 b=3 c=4", (("b", "c"), "a"), layers=2, batch=2),
    spec("a=1 b=4 c=3", ("a", ("a", "c"), "b"), layers=2),
    spec("a=1 b=1 c=4", ("b", "c", "a"), layers=3),
]
VARIANTS = [
    {"schedule": "lazy"},
    {"schedule": "eager"},
    {"schedule": "bytes"},
    {"around": "attention"},
]


def padded_bytes(sizes, p, before, after):
    """What one rank sends of one sample with one number a token, from the definition."""
    padded = {d: ceil(n / p) * p if d in (before, after) else n for d, n in sizes.items()}
    return prod(padded.values()) // p**2 * (p - 1)


def brute_force(sizes, stages, p, shard):
    """Bytes and switches of every choice of a cut during each stage."""
    free = [[dim for dim in sizes if dim not in stage] for stage in stages]
    pairs = itertools.product(sizes, repeat=2)
    cost = {pair: padded_bytes(sizes, p, *pair) for pair in pairs}
    for cuts in itertools.product(*free):
        moves = [pair for pair in itertools.pairwise((shard, *cuts)) if pair[0] != pair[1]]
        yield sum(cost[move] for move in moves), len(moves)


def planned(schedule, sizes, stages, p, shard):
    """Bytes and switches of a schedule; every stage must find its own dims whole."""
    geometry = Geometry(dims=sizes, stages=stages, d_model=1, num_heads=1)
    cuts = list(SCHEDULES[schedule](geometry, p, shard, geometry.stages))
    assert len(cuts) == len(stages)
    assert all(cut not in stage for cut, stage in zip(cuts, stages, strict=True))
    moves = [pair for pair in itertools.pairwise((shard, *cuts)) if pair[0] != pair[1]]
    numbered = switches(schedule, geometry, p, shard, geometry.stages)
    assert [(before, after) for _, before, after in numbered] == moves
    return sum(padded_bytes(sizes, p, *move) for move in moves), len(moves)


def stages_of(names):
    """All stages that leave a dim free."""
    return [s for r in range(1, len(names)) for s in itertools.combinations(names, r)]


def random_problems(count):
    """Up to 8 stages over 2 to 4 dims, single and joint, any sizes, any first cut."""
    rng = random.Random(1966)
    for _ in range(count):
        names = NAMES[: rng.randint(2, 4)]
        kinds = stages_of(names) if rng.random() < 0.7 else [(name,) for name in names]
        stages = [rng.choice(kinds) for _ in range(rng.randint(1, 8))]
        sizes = {name: rng.randint(1, 9) for name in names}
        yield sizes, stages, rng.randint(2, 5), rng.choice(names)


def test_lazy_makes_the_fewest_switches_of_all_sequences_of_three_dims():
    for count in range(1, 5):
        for stages in itertools.product(stages_of("abc"), repeat=count):
            # "b" or "c" cut first is another sequence with the names exchanged.
            problem = (dict.fromkeys("abc", 4), stages, 2, "a")
            assert planned("lazy", *problem)[1] == min(n for _, n in brute_force(*problem))


def test_schedules_against_brute_force():
    better = {"lazy": 0, "eager": 0}
    for problem in random_problems(400):
        every = list(brute_force(*problem))
        assert planned("lazy", *problem)[1] == min(n for _, n in every), problem
        best = planned("bytes", *problem)
        assert best == min(every), problem  # of those with the fewest bytes, the fewest switches
        for name in better:
            better[name] += best[0] < planned(name, *problem)[0]
    assert min(better.values()) > 10, "bytes was never put to the test"


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_switches_a_layer(count):
    names = [f"d{i}" for i in range(count)]
    model = wb.TransformerSpec(
        dims=dict.fromkeys(names, 4), stages=names[::-1], d_model=2, num_heads=1,
        num_layers=4, mlp_per="layer",
    )  # fmt: skip
    found = {
        name: sum(r.phase == "forward" for r in wb.fake_step(model, "dsp", p=2, **chosen).log)
        for chosen in VARIANTS
        for name in chosen.values()
    }
    lazy = ceil(count * 4 / (count - 1)) - 1  # a cut lasts for K-1 stages
    assert found == {"lazy": lazy, "eager": count * 4 - 1, "bytes": lazy, "attention": 2 * 4}


@pytest.mark.parametrize("sizes", ["time=4 space=8", "time=3 space=5", "time=1 space=6"])
@pytest.mark.parametrize("stages", [("space", "time"), ("time", "time", "space")])
def test_two_dims_leave_no_choice(sizes, stages):
    model = spec(sizes, stages, layers=4)
    logs = [wb.fake_step(model, "dsp", p=4, schedule=name).log for name in SCHEDULES]
    assert logs[0] == logs[1] == logs[2]
    assert sum(record.phase == "forward" for record in logs[0]) == 2 * 4 - 1


def test_around_attention_sends_as_much_a_layer_but_keeps_the_stream_in_place():
    model = spec("time=4 space=8", ("space", "time"), layers=3)
    for shard, first in (("time", "time->space"), ("space", "space->time")):
        options = {"p": 4, "shard": shard, "around": "attention"}
        log = [r for r in wb.fake_step(model, "dsp", **options).log if r.phase == "forward"]
        assert [record.dim for record in log] == [first, "->".join(first.split("->")[::-1])] * 3
        longer = replace(model, num_layers=4)
        slopes = [
            wb.closed_form_bytes(longer, "dsp", p=4, shard=shard, around=around)
            - wb.closed_form_bytes(model, "dsp", p=4, shard=shard, around=around)
            for around in ("residual", "attention")
        ]
        assert slopes[0] == slopes[1]


@pytest.mark.parametrize("p", [2, 3, 4])
def test_every_schedule_equals_one_device(p):
    cases = [
        (model, DSP.with_options(**chosen), next(iter(model.dims)) if p == 3 else None)
        for model in UNEVEN
        for chosen in VARIANTS
    ]
    for case, real in zip(cases, run_all(cases, p, "float64"), strict=True):
        hold(case, real, "float64")


def test_options_are_chosen_by_name_in_every_call():
    model = UNEVEN[0]
    chosen = {"p": 2, "schedule": "eager"}
    sent = wb.closed_form_bytes(model, "dsp", **chosen)
    real = wb.run_step(model, "dsp", **chosen)
    assert real.strategy == "dsp"
    assert wb.fake_step(model, "dsp", **chosen).sent_bytes == real.sent_bytes == sent
    assert sent > wb.closed_form_bytes(model, "dsp", p=2)


def test_options_make_a_class_of_the_same_name():
    eager = DSP.with_options(schedule="eager")
    assert (eager.schedule, eager.around, eager.name) == ("eager", "residual", "dsp")
    assert eager.with_options(around="attention").schedule == "eager"
    assert DSP.with_options() is DSP.with_options(schedule="lazy") is DSP
    for cls in STRATEGIES.values():
        for name, values in cls.options.items():
            assert getattr(cls, name) == values[0]


@pytest.mark.parametrize(
    ("cls", "chosen", "message"),
    [
        (DSP, {"shedule": "lazy"}, "dsp has no option 'shedule'; its options: schedule, around"),
        (Ulysses, {"schedule": "lazy"}, "ulysses has no option 'schedule'"),
        (DSP, {"schedule": "best"}, "schedule of dsp must be one of 'lazy', 'eager', 'bytes'"),
        (DSP, {"around": None}, "around of dsp must be one of 'residual', 'attention'; got None"),
    ],
)
def test_options_that_are_none(cls, chosen, message):
    with pytest.raises(ValueError, match=message):
        wb.closed_form_bytes(UNEVEN[0], cls, p=2, **chosen)


def test_options_on_the_command_line(capsys):
    toy = ["--preset", "toy-volume", "--layers", "3", "--p", "2"]
    step.main([*toy, "--option", "schedule=eager", "--option", "around=residual"])
    said = capsys.readouterr().out
    model = replace(wb.PRESETS["toy-volume"], num_layers=3)
    sent = wb.closed_form_bytes(model, "dsp", p=2, schedule="eager", phase="forward")
    assert f"sent {human_bytes(sent)} a rank, predicted +0 B" in said
    with pytest.raises(SystemExit):
        step.main([*toy, "--option", "schedule"])
    assert "schedule of dsp must be one of" in capsys.readouterr().err
