"""Exercises on plans: which are beaten by no other, what a step waits for, how well it scales."""

from dataclasses import replace

from workbench.cluster import Cluster, Device, Link
from workbench.cost import predict
from workbench.exercises.checking import Case, Exercise, by_cases
from workbench.exercises.many_dims import words
from workbench.planner import Plan, pareto, scaling
from workbench.transformer import TransformerSpec


def _box(rng) -> Cluster:
    """A machine without latencies, so that all of a wait is for bytes."""
    device = Device("ours", 24 * 10**9, rng.randint(1, 9) * 1e13)
    return Cluster("a box", device, 16, Link("wires", rng.randint(1, 40) * 1e9))


def _video(rng) -> TransformerSpec:
    dims = {"time": 16 * rng.randint(1, 4), "space": 16 * rng.randint(4, 16)}
    return TransformerSpec(dims=dims, stages=("space", "time"), d_model=64 * rng.randint(2, 8),
                           num_heads=16, num_layers=rng.randint(1, 4))  # fmt: skip


def _fronts(rng):
    cases = []
    for count in (4, 6, 8, 10):
        points = [(rng.randint(1, 40), rng.randint(1, 40)) for _ in range(count)]
        points += [(points[0][0] + 5, points[0][1] + 5)]  # beaten in both
        points = list(dict.fromkeys(points))
        plans = [Plan("dsp", 8, None, "none", True, "", float(s), m) for s, m in points]
        front = {(int(q.seconds), q.memory_bytes) for q in pareto(plans)}
        cases.append(Case((points,), front, f"plans={points}"))
    return cases


check_pareto = Exercise(
    "Write f(plans), where plans is a list of pairs (seconds, gigabytes). Return the set of pairs "
    "that no other pair beats: none is at least as good in both, and better in one.",
    (
        "Take one plan and look for another that is no worse in both. If there is one, it is out.",
        "Sorted by seconds, a plan stays only if it needs less memory than all before it.",
    ),
    by_cases(
        _fronts,
        {
            "Those are the ends only; plans between them may be worth their place, too.": (
                lambda plans: {min(plans), min(plans, key=lambda q: (q[1], q[0]))}
            ),
            "That is one plan; a faster one and a smaller one can both be worth it.": (
                lambda plans: {min(plans)}
            ),
        },
    ),
)


def _waits(rng):
    cases = []
    for factor, strategy in ((2, "dsp"), (4, "ulysses"), (10, "megatron-sp"), (3, "dsp")):
        spec, box = _video(rng), _box(rng)
        faster = replace(box, intra=Link("wires", factor * box.intra.bandwidth("*")))
        slow, quick = (
            predict(spec, strategy, machine, p=8, gradient_sync="flat") for machine in (box, faster)
        )
        given = (slow.seconds, quick.seconds, factor)
        names = ("seconds", "seconds_faster", "factor")
        where = words(dict(zip(names, (f"{slow.seconds:.4g}", f"{quick.seconds:.4g}", factor),
                               strict=True)))  # fmt: skip
        cases.append(Case(given, slow.exposed_communication_s / slow.seconds, where))
    return cases


check_waiting_share = Exercise(
    "Write f(seconds, seconds_faster, factor): with wires `factor` times as fast a step takes "
    "seconds_faster instead of seconds. Return the share of the step, before, that waits for "
    "bytes. Nothing hides, and there are no latencies.",
    (
        "Write the step as two parts: what waits for bytes, and the rest. Which one shrinks?",
        "seconds - seconds_faster = waiting (1 - 1/factor). Then divide by all of the step.",
    ),
    by_cases(
        _waits,
        {
            "Faster wires still take some time: only a part of the waiting went.": (
                lambda seconds, faster, factor: 1 - faster / seconds
            ),
            "That is in seconds; the share of the step is asked for.": (
                lambda seconds, faster, factor: (seconds - faster) / (1 - 1 / factor)
            ),
            "That is the share of the faster step.": lambda seconds, faster, factor: (
                (seconds - faster) / (factor - 1) / faster
            ),
        },
    ),
)


def _efficiencies(rng):
    cases = []
    for p in (2, 4, 8, 16):
        first, last = scaling(_video(rng), "dsp", _box(rng), ps=[1, p])
        given = (first.cost.seconds, last.cost.seconds, p)
        where = words({"seconds_1": f"{given[0]:.4g}", "seconds_p": f"{given[1]:.4g}", "p": p})
        cases.append(Case(given, last.efficiency, where, p))
    return cases


check_efficiency = Exercise(
    "Write f(seconds_1, seconds_p, p): the same step on 1 device and on p. Return the efficiency: "
    "1 if p devices are p times as fast.",
    ("How many times as fast is it on p devices?", "Divide that by how fast p devices could be."),
    by_cases(
        _efficiencies,
        {
            "That is the speed-up; how much of p is it?": lambda one, many, p: one / many,
            "That is upside down: more seconds must make it less efficient.": lambda one, many, p: (
                p * many / one
            ),
        },
    ),
)
