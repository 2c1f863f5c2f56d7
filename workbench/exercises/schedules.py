"""Exercises on the order of switches: two puzzles, the rule, and what padding costs."""

from collections.abc import Callable
from typing import Any

from workbench.exercises.checking import Case, Exercise, Grade, Verdict, by_cases
from workbench.exercises.many_dims import words
from workbench.figures.schedules import Timetable, own_timetable, timetable
from workbench.geometry import Geometry
from workbench.strategies.schedule import free_dims, lazy, switch_elements
from workbench.transformer import TransformerSpec

#: Ten stages over four dims that come in no regular order; the level is cut at first.
PUZZLE = TransformerSpec(
    dims={"time": 4, "height": 4, "width": 4, "level": 4},
    stages=(
        "level", ("time", "height"), "width", "time", "width",
        "height", "level", ("width", "level"), "time", "height",
    ),
    d_model=8, num_heads=2, num_layers=1,
)  # fmt: skip
PUZZLE_START = "level"
#: One frame of a volume model on 4 ranks: to cut its time is to send mostly padding.
BYTES_PUZZLE = TransformerSpec(
    dims={"time": 1, "height": 8, "width": 8}, stages=("time", "height", "width"), d_model=8,
    num_heads=2, num_layers=2,
)  # fmt: skip
BYTES_START, RANKS = "width", 4


def _by_table(
    spec: TransformerSpec,
    start: str,
    best: Timetable,
    counted: Callable[[Timetable], int],
    what: str,
) -> Grade:
    """Make a grade of a typed schedule: possible in every stage, and as good as ``best``."""
    stages = spec.stages * spec.num_layers

    def grade(answer: Any) -> Verdict | None:
        if not isinstance(answer, list | tuple):
            return Verdict(False, f"You gave {type(answer).__name__}; a list of dims is asked for.")
        if not answer or all(cut is None or cut is ... for cut in answer):
            return None
        if len(answer) != len(stages):
            said = f"You gave {len(answer)} dims for {len(stages)} stages: one each."
            return Verdict(False, said)
        for number, (cut, stage) in enumerate(zip(answer, stages, strict=True), start=1):
            if cut not in spec.dims:
                said = f"Stage {number}: {cut!r} is none of the dims {list(spec.dims)}."
                return Verdict(False, said)
            if cut in stage:
                return Verdict(False, f"Stage {number} attends along {cut}, so it can't be cut.")
        mine = own_timetable(spec, answer, RANKS, start)
        number = f"{counted(mine):,} {what}"
        if counted(mine) > counted(best):
            return Verdict(False, f"Possible, with {number}; but fewer will do.")
        return Verdict(True, f"Right: possible in all {len(stages)} stages, with {number}.")

    return grade


check_fewest_switches = Exercise(
    "Give the dim that is cut during each of the puzzle's stages, a list of names.",
    (
        "A cut may stay as long as no stage attends along its dim. Switch only when one does.",
        "When you must switch, look how long each free dim could stay cut. Then go on from there.",
    ),
    _by_table(
        PUZZLE, PUZZLE_START, timetable(PUZZLE, "lazy", RANKS, PUZZLE_START),
        lambda found: found.switches, "switches",
    ),
)  # fmt: skip

check_fewest_bytes = Exercise(
    "Give the dim that is cut during each stage of the two layers, a list of names, so that the "
    "fewest bytes are sent.",
    (
        "One frame on 4 ranks: a rank's part of time has room for 1, so 3 of 4 are padding.",
        "How many bytes has a switch between height and width, and how many one to or from time? "
        "More switches may send less.",
    ),
    _by_table(
        BYTES_PUZZLE, BYTES_START, timetable(BYTES_PUZZLE, "bytes", RANKS, BYTES_START),
        lambda found: found.sent_bytes, "bytes sent by a rank",
    ),
)  # fmt: skip


def _next_cuts(rng):
    cases = []
    while len(cases) < 8:
        dims = rng.sample(["time", "height", "width", "level"], rng.randint(3, 4))
        kinds = [(d,) for d in dims] + [tuple(rng.sample(dims, 2)) for _ in range(len(dims) > 3)]
        stages = [rng.choice(kinds) for _ in range(9)]
        geometry = Geometry(dims=dict.fromkeys(dims, 4), stages=stages, d_model=1, num_heads=1)
        free, later = free_dims(geometry, geometry.stages[0]), stages[1:]
        lasts = [next((i for i, s in enumerate(later) if d in s), len(later)) for d in free]
        if len(free) > 1 and lasts.count(max(lasts)) == 1:  # one dim alone is needed last
            cut = next(lazy(geometry, 2, stages[0][0], geometry.stages))
            cases.append(Case((free, later), cut, f"free={free}, upcoming={later}"))
    return cases


def _soonest(free, upcoming):
    def next_use(dim):
        return next((i for i, stage in enumerate(upcoming) if dim in stage), len(upcoming))

    return min(free, key=next_use)


check_next_cut = Exercise(
    "Write f(free, upcoming), which returns the dim to cut next: one of the list free. upcoming "
    "has the stages still to come, each a tuple of dims.",
    (
        "For each free dim: how many stages pass until one attends along it?",
        "A dim that no stage needs any more can stay cut to the end. What number stands for that?",
    ),
    by_cases(
        _next_cuts,
        {
            "You take the dim that is needed soonest.": _soonest,
            "You take the first that is free, whatever comes.": lambda free, upcoming: free[0],
        },
    ),
)


def _padded_switches(rng):
    cases = []
    for even in (True, False, False, True, False, False):
        p = rng.randint(2, 5)
        names = rng.sample(["time", "height", "width", "level"], 3)
        dims = {name: p * rng.randint(1, 3) for name in names}
        if not even:
            dims[names[rng.randint(0, 1)]] += rng.randint(1, p - 1)
            dims[names[2]] += 1
        before, after = names[:2]
        geometry = Geometry(dims=dims, stages=names, d_model=1, num_heads=1)
        sent = switch_elements(geometry, p, before, after)
        where = words(dims, p=p) + f", {before}->{after}"
        note = "" if even else "p does not divide a size"
        cases.append(Case((dims, before, after, p), sent, where, p, note))
    return cases


def _tokens(dims, *fixed):
    count = 1
    for name, size in dims.items():
        count *= 1 if name in fixed else size
    return count


check_padded_switch = Exercise(
    "Write f(dims, before, after, p), which returns how many tokens one rank sends when the cut "
    "moves from one dim to another, padding included.",
    (
        "Each rank cuts its part into p chunks and keeps one. Which sizes has a chunk?",
        "Both dims of the switch are cut in a chunk: ceil(size / p) of each. The others are whole.",
    ),
    by_cases(
        _padded_switches,
        {
            "You left the padding out.": lambda dims, before, after, p: (
                _tokens(dims) * (p - 1) / p**2
            ),
            "You count the chunk that stays, too.": lambda dims, before, after, p: (
                p * _tokens(dims, before, after) * -(-dims[before] // p) * -(-dims[after] // p)
            ),
            "The other dims are not cut, so they are not padded.": lambda dims, before, after, p: (
                (p - 1) * _padded(dims, p)
            ),
        },
    ),
)


def _padded(dims, p):
    count = p ** (len(dims) - 2)
    for size in dims.values():
        count *= -(-size // p)
    return count
