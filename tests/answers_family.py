"""Right and planted wrong answers to the exercises on rings, meshes and grouped queries."""

import math


def zigzag(size, p, rank):
    run = math.ceil(size / (2 * p))
    runs = [list(range(size))[i * run : (i + 1) * run] for i in (rank, 2 * p - 1 - rank)]
    return runs[0] + runs[1]


def causal_pairs(size, p, rank):
    part = size // p
    return rank * part**2 + part * (part + 1) // 2


def usp_bytes(m, u, r, g):
    return [(2 + 2 * g) * (u - 1) * m / u / (u * r), 2 * g * (r - 1) * m / (u * r)]


def group(mesh, axis, rank):
    names = list(mesh)
    stride = math.prod(mesh[name] for name in names[names.index(axis) + 1 :])
    first = rank - rank // stride % mesh[axis] * stride
    return [first + i * stride for i in range(mesh[axis])]


#: check -> (the right answer, wrong ones).
FAMILY_ANSWERS = {
    "zigzag": (
        zigzag,
        lambda size, p, rank: list(range(size))[rank::p],
        lambda size, p, rank: [rank, 2 * p - 1 - rank],
        lambda size, p, rank: sorted(zigzag(size, p, p - 1 - rank)),
        lambda size, p, rank: zigzag(size, p, rank)[::-1],
        lambda size, p, rank: zigzag(size // (2 * p) * 2 * p, p, rank),
        lambda size, p, rank: list(range(size))[rank * (size // p) : (rank + 1) * (size // p)],
    ),
    "causal_pairs": (
        causal_pairs,
        lambda size, p, rank: (rank + 1) * (size // p) ** 2,
        lambda size, p, rank: causal_pairs(size, p, rank) - size // p,
        lambda size, p, rank: size * (size + 1) / 2 / p,
        lambda size, p, rank: causal_pairs(size, p, p - 1 - rank),
        lambda size, p, rank: size * size // p,
    ),
    "usp_bytes": (
        usp_bytes,
        lambda m, u, r, g: usp_bytes(m, u, r, g)[::-1],
        lambda m, u, r, g: usp_bytes(m, u, r, 1),
        lambda m, u, r, g: [(2 + 2 * g) * m / u / r, usp_bytes(m, u, r, g)[1]],
        lambda m, u, r, g: [usp_bytes(m, u, r, g)[0], 2 * g * m / u],
        lambda m, u, r, g: sum(usp_bytes(m, u, r, g)),
    ),
    "group": (
        group,
        lambda mesh, axis, rank: [rank // mesh[axis] * mesh[axis] + i for i in range(mesh[axis])],
        lambda mesh, axis, rank: group(dict(reversed(mesh.items())), axis, rank),
        lambda mesh, axis, rank: [other for other in group(mesh, axis, rank) if other != rank],
        lambda mesh, axis, rank: group(mesh, [*mesh][-1], rank),
        lambda mesh, axis, rank: list(range(math.prod(mesh.values()))),
    ),
}
