"""Right and planted wrong answers to the exercises on nodes and wires."""


def carried(sent, nodes, ranks):
    return sent * ranks * (nodes - 1) * ranks // (nodes * ranks - 1)


def equal(seconds_a, carried_a, seconds_b, carried_b):
    return 8 * (carried_b - carried_a) / (seconds_a - seconds_b) / 1e9


#: check -> (the right answer, wrong ones).
WIRE_ANSWERS = {
    "card_bytes": (
        carried,
        lambda sent, nodes, ranks: sent * ranks,
        lambda sent, nodes, ranks: sent * (nodes - 1) * ranks // (nodes * ranks - 1),
        lambda sent, nodes, ranks: sent * ranks * (nodes - 1) / nodes,
        lambda sent, nodes, ranks: sent,
    ),
    "wire_seconds": (
        lambda carried, speed: 8 * carried / (speed * 1e9),
        lambda carried, speed: carried / (speed * 1e9),
        lambda carried, speed: 8 * carried / (speed * 1e6),
        lambda carried, speed: 8 * carried / (speed * 2**30),
    ),
    "crossover": (
        equal,
        lambda sa, ca, sb, cb: equal(sa, ca, sb, cb) / 8,
        lambda sa, ca, sb, cb: 8 * cb / (sa - sb) / 1e9,
        lambda sa, ca, sb, cb: 8 * (cb - ca) / (sa + sb) / 1e9,
    ),
}
