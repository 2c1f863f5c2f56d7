"""Exercises on strategies: what is cut, what is sent, in which order.

Each check computes its targets with the tested library, on several shapes drawn from a fixed seed.
"""

from math import prod

import torch

from workbench.collectives import SENT_PER_INPUT_BYTE, sent_bytes
from workbench.dims import Dims
from workbench.exercises.checking import Case, Exercise, by_cases
from workbench.exercises.many_dims import NAMES, random_spec, words
from workbench.geometry import Geometry
from workbench.layout import Layout, take_shard
from workbench.step import closed_form_bytes, fake_step
from workbench.strategies.dsp import DSP
from workbench.strategies.schedule import switches


def _local_shapes(rng):
    cases = []
    for even in (True, False, True, False, False):
        p = rng.randint(2, 4)
        shape = [rng.randint(1, 3), *(p * rng.randint(1, 4) for _ in range(2)), 8]
        position = rng.randint(1, 2)
        shape[position] += 0 if even else rng.randint(1, p - 1)
        names = ("batch", "time", "space", "model")
        layout = Layout(Dims(dict(zip(names, shape, strict=True))), names[position])
        where = f"shape={tuple(shape)}, position={position}, p={p}"
        note = "" if even else "p does not divide the size"
        given = (tuple(shape), position, p)
        cases.append(Case(given, layout.local_shape(p), where, p, note))
    return cases


check_local_shape = Exercise(
    "Write f(shape, position, p), which returns the shape of the buffer on each of p ranks when "
    "the dim at that position is cut, as a tuple.",
    (
        "All ranks have buffers of one size; the last ones fill theirs up with zeros.",
        "Divide, and round so that nothing is lost: 5 entries on 2 ranks need room for 3 each.",
    ),
    by_cases(_local_shapes),
)


def _sent(rng):
    cases = []
    for kind in SENT_PER_INPUT_BYTE:
        for p in rng.sample(range(2, 9), 2):
            size = p * 4 * rng.randint(100, 999)
            where = f"{kind} of a buffer of {size} bytes, p={p}"
            cases.append(Case((kind, size, p), sent_bytes(kind, size, p), where, p, f"kind={kind}"))
    return cases


check_sent_bytes = Exercise(
    "Write f(kind, input_bytes, p), which returns what one rank sends in one collective: "
    f"{', '.join(SENT_PER_INPUT_BYTE)}.",
    (
        "Ask of each kind: of my own buffer, which part do others need, and how many of them?",
        "All-to-all: p parts, and one of them is mine. All-gather: my buffer goes past every "
        "other rank. Reduce-scatter: as an all-to-all. All-reduce: two of the others, one after "
        "the other. Shift: my buffer, once.",
    ),
    by_cases(
        _sent,
        {
            "As if a rank sent its whole buffer once, whatever the kind.": lambda k, size, p: size,
            "As if every kind were an all-to-all.": lambda k, size, p: size * (p - 1) // p,
        },
    ),
)


def _collectives_of(strategy, pick):
    """Cases of one layer's forward collectives under ``strategy``, each record by ``pick``."""

    def make(rng):
        cases = []
        for p in (2, 3, 4):
            spec = random_spec(rng, p, num_layers=1, stages=("time",))
            log = fake_step(spec, strategy, p=p, shard="time").log
            found = [pick(record) for record in log if record.phase == "forward"]
            cases.append(Case((), found, words(spec.dims, p=p), p))
        return cases

    return make


check_megatron_sp_order = Exercise(
    "List the collectives of one attention and its MLP under Megatron-SP, forward, in order, such "
    'as ["all_to_all", "all_reduce"].',
    (
        "Between the branches each rank holds a part of the tokens; inside, it needs them all.",
        "What does a rank do when it enters a branch, and what when it leaves it? There are two "
        "branches.",
    ),
    by_cases(_collectives_of("megatron-sp", lambda r: r.kind), function=False),
)

check_ulysses_layouts = Exercise(
    "Give the layouts of the queries before and after Ulysses' all-to-all, then of the attention's "
    'output before and after it, four strings such as "[B, T, S, H, C/sp]", when time is cut.',
    (
        "H counts heads, C the channel of one head. Something is cut in all four layouts.",
        "A head needs all of time, but no other head. So trade what is cut, and trade it back.",
    ),
    by_cases(
        lambda rng: [
            Case((), [*case.expected[0], *case.expected[-1]], case.where, case.p)
            for case in _collectives_of("ulysses", lambda r: (str(r.before), str(r.after)))(rng)
        ],
        function=False,
    ),
)


def _step_bytes(strategy, phase):
    """Cases (M, p, layers) of the bytes that one rank sends in a phase of a whole step."""

    def make(rng):
        cases = []
        for p in (2, 4, 3, 2, 4):
            spec = random_spec(rng, p)
            m, layers = spec.activation_bytes(), spec.num_layers
            sent = closed_form_bytes(spec, strategy, p=p, phase=phase, shard="time")
            cases.append(Case((m, p, layers), sent, f"M={m} bytes, p={p}, {layers} layers", p))
        return cases

    return make


check_ring_bytes = Exercise(
    "Write f(m, p, num_layers), which returns what one rank sends in a whole step, forward and "
    "backward, under ring attention; m is M in bytes, one of a layer's two stages is crossed.",
    (
        "Forward, K and V make p-1 hops. Backward, K and V make them again. What else travels?",
        "The gradients of K and V visit every rank and must come home: one hop more than K and V. "
        "A hop carries two buffers of M/p.",
    ),
    by_cases(
        _step_bytes("ring", None),
        {
            "That is the forward pass alone.": lambda m, p, n: n * 2 * (p - 1) * m / p,
            "As if the backward pass sent what the forward pass sends.": lambda m, p, n: (
                n * 4 * (p - 1) * m / p
            ),
            "The gradients of K and V have not come home.": lambda m, p, n: n * 6 * (p - 1) * m / p,
        },
    ),
)


def _switch_cases(rng):
    cases = []
    for p, count in ((2, 2), (3, 2), (4, 2), (2, 3)):
        dims = {name: p * rng.randint(1, 3) for name in NAMES[:count]}
        sizes = Dims({"batch": rng.randint(1, 2), **dims, "model": 4})
        before, after = rng.sample(list(dims), 2)
        x = torch.arange(prod(sizes.values()), dtype=torch.float32).reshape(*sizes.values())
        layouts = [Layout(sizes, dim) for dim in (before, after)]
        held = [[take_shard(x, layout, rank, p) for rank in range(p)] for layout in layouts]
        positions = (layouts[0].position(before), layouts[1].position(after))
        cases.append(Case((held[0], *positions), held[1], f"{layouts[0]} to {layouts[1]}, p={p}"))
    return cases


check_switch = Exercise(
    "Write f(parts, before, after): parts[r] is rank r's tensor, cut along the dim at position "
    "before. Return the list of the ranks' tensors cut along the dim at position after.",
    (
        "Each rank cuts its tensor into p chunks along the new dim and sends chunk r to rank r.",
        "Rank r ends with chunk r of every rank, in the order of the ranks, joined along the old "
        "dim. Two torch functions do it: one that chunks, one that concatenates.",
    ),
    by_cases(
        _switch_cases,
        {"Nothing has moved.": lambda parts, before, after: parts},
    ),
)

check_dsp_bytes = Exercise(
    "Write f(m, p, num_layers), which returns what one rank sends forward under DSP; m is M in "
    "bytes, and each layer has two stages.",
    (
        "One switch is an all-to-all of a rank's part, M/p. One of the p chunks stays at home.",
        "There is a switch between two stages that follow each other, and none before the first "
        "or after the last. How many gaps are there?",
    ),
    by_cases(
        _step_bytes("dsp", "forward"),
        {
            "That is the paper's volume: it counts the chunk that stays at home, and one switch "
            "too many for a whole model.": lambda m, p, n: 2 * n * m / p,
            "There is no switch after the last stage.": lambda m, p, n: 2 * n * (p - 1) * m / p / p,
            "It counts the chunk that stays at home.": lambda m, p, n: (2 * n - 1) * m / p,
        },
    ),
)


def _switch_counts(rng):
    cases = []
    for count in (2, 3, 4, 5, 3):
        dims = {f"d{i}": rng.randint(2, 9) for i in range(count)}
        geometry = Geometry(dims=dims, stages=tuple(dims), d_model=8, num_heads=1)
        layers = rng.randint(2, 7)
        stages, last = geometry.stages * layers, f"d{count - 1}"
        made = len(list(switches("lazy", geometry, 2, last, stages)))
        cases.append(Case((count, layers), made, f"{count} dims, {layers} layers"))
    return cases


check_switch_count = Exercise(
    "Write f(num_dims, num_layers), which returns how many switches DSP makes forward. Each layer "
    "attends along every dim in turn; the last dim is cut at first.",
    (
        "After a switch, any dim may be cut but the one that is attended along. Choose the one "
        "whose turn is farthest away.",
        "That is the dim whose turn has just been. How many stages pass until its turn comes "
        "again? A loop over the stages counts the switches.",
    ),
    by_cases(
        _switch_counts,
        {
            "That is a switch before every stage but the first.": lambda k, n: k * n - 1,
            "That is right for two dims; more dims leave a choice.": lambda k, n: 2 * n - 1,
        },
    ),
)


def _switchable(rng):
    cases = []
    for stages in (
        (("time",), ("space",)),
        (("time", "space"),),
        (("time",),),
        (("time",), ("space", "depth")),
        (("time", "space", "depth"), ("time",)),
        (("space", "depth"),),
    ):
        names = sorted({*NAMES[: max(len(s) for s in stages)], *(d for s in stages for d in s)})
        dims = {name: rng.randint(2, 9) for name in names}
        geometry = Geometry(dims=dims, stages=stages, d_model=8, num_heads=1)
        cases.append(Case((dims, stages), _accepts(DSP, geometry), words(dims, stages=stages)))
    return cases


def _accepts(strategy, geometry) -> bool:
    try:
        strategy.check(geometry, 2)
    except ValueError:
        return False
    return True


check_switchable = Exercise(
    "Write f(dims, stages), which returns True where DSP can run the model on 2 ranks, else False.",
    (
        "During every attention some dim has to be cut, and not one that is attended along.",
        "Look at each stage by itself: does it leave a dim out?",
    ),
    by_cases(
        _switchable,
        {
            "Having several dims is not enough.": lambda dims, stages: len(dims) > 1,
            "Having several stages is not what counts.": lambda dims, stages: len(stages) > 1,
        },
    ),
)
