"""Exercises on nodes and wires: what a card carries, how long it takes, when fewer bytes win."""

from fractions import Fraction

from workbench.collectives import Collective, crossing_bytes, sent_bytes
from workbench.exercises.checking import Case, Exercise, by_cases
from workbench.exercises.many_dims import words
from workbench.wires import GBIT_PER_S, WireRow


def _record(kind: str, input_bytes: int, p: int) -> Collective:
    sent = sent_bytes(kind, input_bytes, p)
    return Collective(kind, "sp", None, "float32", input_bytes, sent, "forward", 0, 0)


def _carried(rng):
    cases = []
    for nodes, ranks in ((2, 2), (2, 4), (3, 2), (4, 1), (2, 3)):
        p = nodes * ranks
        record = _record("all_to_all", p * (p - 1) * rng.randint(10, 99), p)
        where = words({"sent": record.sent_bytes, "nodes": nodes, "ranks": ranks})
        expected = crossing_bytes([record], nodes, ranks)
        cases.append(Case((record.sent_bytes, nodes, ranks), expected, where, p))
    return cases


check_card_bytes = Exercise(
    "Write f(sent, nodes, ranks), which returns the bytes that leave a node through its card in "
    "one all-to-all. Each rank sends `sent` bytes in all, an equal share to each peer; each of the "
    "nodes has that many ranks.",
    (
        "How many peers has a rank? How many of them are in other nodes?",
        "All ranks of a node send through the same card.",
    ),
    by_cases(
        _carried,
        {
            "That is one rank's share of what its card carries.": lambda sent, nodes, ranks: (
                sent * (nodes - 1) * ranks / (nodes * ranks - 1)
            ),
            "What neighbours in the node get does not pass the card.": lambda sent, nodes, ranks: (
                sent * ranks
            ),
        },
    ),
)


def _seconds(rng):
    cases = []
    for _ in range(4):
        carried, speed = 10**6 * rng.randint(2, 400), rng.choice([0.1, 0.25, 1.0, 10.0, 100.0])
        expected = WireRow("dsp", speed, 0.0, 0.0, carried).wire_s
        where = words({"carried": carried, "gbit_per_s": speed})
        cases.append(Case((carried, speed), expected, where))
    return cases


check_wire_seconds = Exercise(
    "Write f(carried, gbit_per_s), which returns the seconds that a card needs for so many bytes.",
    (
        "Speeds of wires are in bits, sizes of tensors in bytes.",
        "1 Gbit/s is 1e9 bits a second, and a byte is 8 of them.",
    ),
    by_cases(
        _seconds,
        {
            "A byte has 8 bits.": lambda carried, speed: carried / (speed * 1e9),
            "Giga is 10^9; mega is 10^6.": lambda carried, speed: 8 * carried / (speed * 1e6),
        },
    ),
)


def _equal(rng):
    cases = []
    for _ in range(4):
        fewer, more = 10**6 * rng.randint(2, 9), 10**6 * rng.randint(12, 90)
        slow, fast = Fraction(rng.randint(30, 60), 100), Fraction(rng.randint(5, 20), 100)
        # Equal when slow + fewer / speed = fast + more / speed.
        expected = float((more - fewer) / (slow - fast)) / GBIT_PER_S
        at = (WireRow("", expected, 0.0, float(s), c) for s, c in ((slow, fewer), (fast, more)))
        one, other = (row.expected_s for row in at)
        assert abs(one - other) < 1e-9, (one, other)
        given = (float(slow), fewer, float(fast), more)
        where = words(dict(zip(("seconds_a", "carried_a", "seconds_b", "carried_b"), given,
                               strict=True)))  # fmt: skip
        cases.append(Case(given, expected, where))
    return cases


check_crossover = Exercise(
    "Write f(seconds_a, carried_a, seconds_b, carried_b): without wires, A takes longer than B, "
    "but its card carries less. Return the speed in Gbit/s at which both take the same.",
    (
        "The wire comes on top of the seconds without it. Write both sums, and make them equal.",
        "What A saves on the wire must be what it loses elsewhere: (carried_b - carried_a) / speed "
        "= seconds_a - seconds_b. Then turn bytes a second into Gbit/s.",
    ),
    by_cases(
        _equal,
        {
            "That is in GB/s: a byte has 8 bits.": lambda sa, ca, sb, cb: (
                (cb - ca) / (sa - sb) / 1e9
            ),
            "The wire counts for both of them.": lambda sa, ca, sb, cb: 8 * cb / (sa - sb) / 1e9,
        },
    ),
)
