"""Exercises on rings, meshes and grouped queries: who holds, computes and sends what."""

from workbench.dims import Dims
from workbench.exercises.checking import Case, Exercise, by_cases
from workbench.figures.balance import balance
from workbench.figures.meshes import axis_traffic, groups_along
from workbench.layout import Layout, shard_size
from workbench.step import fake_step
from workbench.transformer import TransformerSpec


def _dealt(rng):
    cases = []
    for size, p in ((16, 2), (16, 4), (24, 3), (12, 4), (7, 2)):
        layout = Layout(Dims({"batch": 1, "tokens": size, "model": 1}), "tokens", order="zigzag")
        for rank in sorted(rng.sample(range(p), 2)):
            held, where = list(layout.held("tokens", rank, p)), f"{size} tokens, rank {rank} of {p}"
            note = "2p does not divide the tokens" if size % (2 * p) else ""
            cases.append(Case((size, p, rank), held, where, p, note))
    return cases


def _run(size, p, i):
    part = shard_size(size, 2 * p)
    return list(range(size))[i * part : (i + 1) * part]


check_zigzag = Exercise(
    "Write f(size, p, rank), which returns the list of tokens, from 0 to size-1, that a zigzag "
    "gives to a rank, in order.",
    (
        "Cut the tokens into 2p runs of equal length. A rank gets one from the front half and one "
        "from the back half: the ends go to the same rank.",
        "Rank r has the runs r and 2p-1-r. A run has ceil(size / 2p) tokens, the last ones fewer.",
    ),
    by_cases(
        _dealt,
        {
            "That is one run: the contiguous order.": lambda size, p, rank: list(range(size))[
                rank * shard_size(size, p) : (rank + 1) * shard_size(size, p)
            ],
            "That is every p-th token: stripes.": lambda size, p, rank: list(range(size))[rank::p],
            "The second run is p further on; zigzag runs come back the other way.": (
                lambda size, p, rank: _run(size, p, rank) + _run(size, p, rank + p)
            ),
        },
    ),
)


def _causal(rng):
    return [
        Case((size, p, rank), balance(size, p, "contiguous").totals[rank],
             f"{size} tokens, rank {rank} of {p}", p)
        for size, p in ((8, 2), (12, 3), (32, 4), (64, 8))
        for rank in sorted(rng.sample(range(p), 2))
    ]  # fmt: skip


check_causal_pairs = Exercise(
    "Write f(size, p, rank): the pairs of a query and a key that a rank computes under a causal "
    "mask when the tokens are dealt in runs (contiguous) and p divides their number.",
    (
        "Of each earlier rank's keys its queries see all. And of its own?",
        "With c = size/p tokens: rank * c * c of others, and c (c + 1) / 2 of its own, for each "
        "token sees itself.",
    ),
    by_cases(
        _causal,
        {
            "A token sees itself, too: the own block has c (c + 1) / 2 pairs.": (
                lambda size, p, rank: rank * (size // p) ** 2 + size // p * (size // p - 1) // 2
            ),
            "That counts the own block in full; half of it is masked.": (
                lambda size, p, rank: (rank + 1) * (size // p) ** 2
            ),
            "That is an even share: of a zigzag, not of runs.": lambda size, p, rank: (
                size * (size + 1) / 2 / p
            ),
        },
    ),
)


def _exchanged(rng):
    cases = []
    for u, r, kv in ((2, 2, 8), (4, 2, 8), (2, 4, 8), (2, 4, 2), (4, 2, 4), (1, 4, 4), (8, 1, 8)):
        spec = TransformerSpec(dims={"tokens": 32}, stages=("tokens",), d_model=32, num_heads=8,
                               num_kv_heads=kv, num_layers=1)  # fmt: skip
        mesh = {"ring": r, "ulysses": u}
        step = fake_step(spec, "usp", p=u * r, mesh=mesh)
        ring, ulysses = (t.sent_bytes for t in axis_traffic(step, mesh, phases=["forward"]))
        where = f"u={u}, r={r}, g={kv}/8, M={spec.activation_bytes():,} bytes"
        given = (spec.activation_bytes(), u, r, kv / 8)
        note = "keys and values have fewer heads" if kv < 8 else ""
        cases.append(Case(given, [ulysses, ring], where, u * r, note))
    return cases


def _usp(m, u, r, g):
    return (2 + 2 * g) * (u - 1) / u * m / u / r, 2 * g * (r - 1) * m / u / r


check_usp_bytes = Exercise(
    "Write f(m, u, r, g), which returns two numbers: bytes that one rank sends forward along the "
    "Ulysses axis and along the ring's, in one attention. M bytes are one activation, u and r the "
    "ranks along the axes, g = heads of keys / heads of queries, and u divides the heads of keys.",
    (
        "Along the Ulysses axis go four tensors by all-to-all: q and o of M/p, k and v of g M/p. "
        "Then k and v go round a ring of r ranks.",
        "An all-to-all sends (u-1)/u of its buffer. A ring of r ranks has r-1 hops; after the "
        "exchange a rank has a u-th of the heads of u times the tokens.",
    ),
    by_cases(
        _exchanged,
        {
            "You have the two axes the wrong way round.": lambda *given: _usp(*given)[::-1],
            "All of a buffer but the part that stays is sent: (u-1)/u of it.": (
                lambda m, u, r, g: ((2 + 2 * g) * m / u / r, _usp(m, u, r, g)[1])
            ),
            "Keys and values have fewer heads: where is g?": lambda m, u, r, g: _usp(m, u, r, 1),
        },
    ),
)


def _grouped(rng):
    meshes = (
        {"ring": 2, "ulysses": 2}, {"ring": 2, "ulysses": 4}, {"ulysses": 4, "ring": 2},
        {"outer": 3, "inner": 2}, {"data": 2, "ulysses": 2, "ring": 2},
    )  # fmt: skip
    cases = []
    for mesh in meshes:
        for axis in mesh:
            groups = groups_along(mesh, axis)
            group = rng.choice(groups)
            rank, sizes = rng.choice(group), " x ".join(f"{a} {n}" for a, n in mesh.items())
            note = "the axis is not the innermost" if axis != [*mesh][-1] else ""
            where = f"{axis} in a mesh of {sizes}, rank {rank}"
            cases.append(Case((mesh, axis, rank), list(group), where, None, note))
    return cases


check_group = Exercise(
    "Write f(mesh, axis, rank): the list of ranks, in order, that communicate with `rank` along "
    "`axis`, itself included. A mesh has the ranks along each axis, the outermost first: "
    '{"ring": 2, "ulysses": 4}.',
    (
        "Along the last axis neighbours have neighbouring numbers. Along the one before, numbers "
        "differ by the size of the last.",
        "stride = the product of the sizes of all axes further in. rank // stride % size is the "
        "rank's place; the group starts at rank - place * stride.",
    ),
    by_cases(
        _grouped,
        {
            "These are neighbours by number, which they are along the last axis only.": (
                lambda mesh, axis, rank: [
                    rank // mesh[axis] * mesh[axis] + i for i in range(mesh[axis])
                ]
            ),
        },
    ),
)
