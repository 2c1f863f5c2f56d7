"""What a rank has of each attention, by formula: how many tokens, heads and pairs.

Of ranks that have unequally much to do under a causal mask the busiest is meant: all wait for it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from typing import NamedTuple

from workbench.dims import Stage
from workbench.layout import shard_size
from workbench.strategies.base import count_of
from workbench.strategies.dsp import aside
from workbench.strategies.dsp_mesh import Place
from workbench.strategies.schedule import cuts
from workbench.strategies.ulysses import sent_heads


class Share(NamedTuple):
    """What a rank has of one attention and of what surrounds it.

    ``tokens`` of the residual stream outside of the branch and ``inside`` of it; ``heads`` and
    ``kv_heads`` it computes; ``groups`` of ``queries`` against ``keys``, of which ``pairs`` are
    computed; ``hops`` it takes, ``merges`` merged; ``width`` is the part of the weights it has.
    """

    tokens: int
    inside: int
    heads: float
    kv_heads: float
    groups: int
    queries: int
    keys: int
    pairs: float
    hops: int = 1
    width: int = 1


def shares(cls, spec, ranks, shard: str | None) -> dict[tuple[int, Share], int]:
    """How often a rank has which share of which stage, by the stage's number and the share."""
    counts: dict[tuple[int, Share], int] = {}
    own = count_of(ranks)
    if own == 1 or not cls.cuts_sequence or cls.name not in _SHARES:
        width = own if cls.cut_weights else 1
        found = [(i, _whole(spec, stage, width)) for i, stage in enumerate(spec.stages)]
        return dict.fromkeys(found, spec.num_layers)
    for number, share in _SHARES[cls.name](cls, spec, ranks, shard):
        counts[number, share] = counts.get((number, share), 0) + 1
    layers = spec.num_layers if cls.name in _EVERY_LAYER_ALIKE else 1
    return {key: count * layers for key, count in counts.items()}


def _sized(spec, stage: Stage, sizes: Mapping[str, int], tokens: int, heads: float = 0) -> Share:
    """A share with all of the stage's dims, of a tensor with these local sizes."""
    length = prod(sizes[dim] for dim in stage)
    inside = spec.batch * prod(sizes.values())
    kv = spec.kv_heads if not heads else max(1, heads * spec.kv_heads / spec.num_heads)
    pairs = _pairs(stage, length, length)
    return Share(tokens, tokens, heads or spec.num_heads, kv, inside // length, length, length,
                 pairs)  # fmt: skip


def _whole(spec, stage: Stage, width: int) -> Share:
    share = _sized(spec, stage, spec.dims, spec.batch * spec.tokens)
    return share._replace(heads=share.heads / width, kv_heads=share.kv_heads / width, width=width)


def _cut_sizes(spec, dim: str, parts: int, order: str = "contiguous") -> dict[str, int]:
    return {**spec.dims, dim: shard_size(spec.dims[dim], parts, order)}


def _pairs(stage: Stage, queries: int, keys: int) -> float:
    """Pairs of a query and a key that one rank computes which has them all; a mask saves none."""
    if not stage.causal or stage.window is not None:
        return queries * keys
    return queries * (queries + 1) / 2


def _ring_pairs(stage: Stage, shard: str, queries: int, keys: int, parts: int, order: str) -> float:
    """The same for the busiest of the ``parts`` ranks of a ring, where they divide the cut dim.

    Blocks that nobody sees are left out, and those that are causal cost half; where the cut dim is
    not the stage's first, or several dims are dealt in stripes, others take a mask.
    """
    every, alone = queries * keys, len(stage) == 1
    if not stage.masked or stage[0] != shard or (stage.window is not None and not alone):
        return every
    seen = every
    if stage.causal:
        own = queries * (queries + 1) / 2
        seen = keys * (keys + 1) / 2 / parts
        if order == "contiguous" or (order == "striped" and not alone):
            seen = every - queries**2 + own
    if stage.window is None or order == "striped":
        return seen if stage.window is None else every
    pieces = 2 if order == "zigzag" else 1
    run = queries / pieces
    own = run * (run + 1) / 2 if stage.causal and stage.window >= run else run**2
    reach = int((stage.window - 2) // run) + 1 if stage.window > 1 else 0
    beside = min(pieces * parts - 1, reach if stage.causal else 2 * reach)
    return min(seen, pieces * (own + beside * run**2))


def _gathered_pairs(
    stage: Stage, shard: str, queries: int, keys: int, parts: int, order: str
) -> float:
    """The same where each rank has all keys at once: up to its last query's own, under a mask."""
    if not stage.causal or stage[0] != shard or order != "zigzag":
        return queries * keys
    return (queries / 2) ** 2 * (2 * parts + 1)


def _megatron_sp(cls, spec, p, shard) -> Iterator[tuple[int, Share]]:
    part = spec.local_elements(shard, p) // spec.d_model
    for number, stage in enumerate(spec.stages):
        yield number, _whole(spec, stage, p)._replace(tokens=part)


def _ulysses(cls, spec, p, shard) -> Iterator[tuple[int, Share]]:
    sizes = _cut_sizes(spec, shard, p)
    tokens = spec.batch * prod(sizes.values())
    for number, stage in enumerate(spec.stages):
        if shard in stage:
            share = _sized(spec, stage, spec.dims, tokens, spec.num_heads / p)
            yield number, share._replace(kv_heads=sent_heads(spec, p) / p)
        else:
            yield number, _sized(spec, stage, sizes, tokens)


def _ring(cls, spec, p, shard) -> Iterator[tuple[int, Share]]:
    sizes = _cut_sizes(spec, shard, p, cls.order)
    tokens = spec.batch * prod(sizes.values())
    for number, stage in enumerate(spec.stages):
        if shard not in stage:
            yield number, _sized(spec, stage, sizes, tokens)
            continue
        ring = p if cls.transfer == "ring" else 1
        count = _ring_pairs if cls.transfer == "ring" else _gathered_pairs
        share = _ringed(spec, stage, shard, sizes, tokens, p, cls.order, count)
        yield number, share._replace(hops=ring)


def _ringed(spec, stage, shard, sizes, tokens, parts, order, count) -> Share:
    queries, keys = (prod(s[dim] for dim in stage) for s in (sizes, spec.dims))
    groups = spec.batch * prod(sizes.values()) // queries
    pairs = count(stage, shard, queries, keys, parts, order)
    return Share(tokens, tokens, spec.num_heads, spec.kv_heads, groups, queries, keys, pairs,
                 parts)  # fmt: skip


def _dsp(cls, spec, p, shard) -> Iterator[tuple[int, Share]]:
    if cls.around == "attention":
        tokens = spec.local_elements(shard, p) // spec.d_model
        for number, stage in enumerate(spec.stages * spec.num_layers):
            cut = aside(spec, p, shard, stage) if shard in stage else shard
            share = _sized(spec, stage, _cut_sizes(spec, cut, p), tokens)
            inside = spec.local_elements(cut, p) // spec.d_model
            yield number % len(spec.stages), share._replace(inside=inside)
        return
    stages, kinds = spec.stages * spec.num_layers, len(spec.stages)
    held = Counter(
        (number % kinds, cut)
        for number, cut in enumerate(cuts(cls.schedule, spec, p, shard, stages))
    )
    for (number, cut), times in held.items():
        tokens = spec.local_elements(cut, p) // spec.d_model
        share = _sized(spec, spec.stages[number], _cut_sizes(spec, cut, p), tokens)
        yield from [(number, share)] * times


def _usp(cls, spec, ranks, shard) -> Iterator[tuple[int, Share]]:
    ulysses, ring = ranks["ulysses"], ranks["ring"]
    order = cls.dealt(ring)
    outer = _cut_sizes(spec, shard, ring, order)
    sizes = {**outer, shard: shard_size(outer[shard], ulysses)}
    tokens = spec.batch * prod(sizes.values())
    for number, stage in enumerate(spec.stages):
        if shard not in stage:
            yield number, _sized(spec, stage, sizes, tokens)
            continue
        if ring == 1:
            share = _sized(spec, stage, outer, tokens, spec.num_heads / ulysses)
        else:
            share = _ringed(spec, stage, shard, outer, tokens, ring, order, _ring_pairs)
        heads = {"heads": spec.num_heads / ulysses, "kv_heads": sent_heads(spec, ulysses) / ulysses}
        yield number, share._replace(**heads)


def _dsp_mesh(cls, spec, ranks, shard) -> Iterator[tuple[int, Share]]:
    places = {axis: Place(ranks[axis]) for axis in cls.axes}
    layout = cls.first_layout(spec, places, shard)
    stages = list(spec.stages) * spec.num_layers
    for i, stage in enumerate(stages):
        for _, after in cls.moves(spec, places, layout, stage, stages[i + 1 :]):
            layout = after
        local = layout.local_shape(ranks[layout.axis])
        tokens = prod(local[:-1])
        sizes = dict(zip(spec.dims, local[1:-1], strict=True))
        heads = 0
        if "ulysses" in cls.axes and layout.outer[0].dim in stage:
            within = layout.turned("ulysses", *places["dsp"]).with_split(None)
            sizes = dict(zip(spec.dims, within.local_shape(1)[1:-1], strict=True))
            heads = spec.num_heads / ranks["ulysses"]
        share = _sized(spec, stage, sizes, tokens, heads)
        if heads:
            copied = sent_heads(spec, ranks["ulysses"]) / ranks["ulysses"]
            share = share._replace(kv_heads=copied)
        yield i % len(spec.stages), share


_SHARES = {
    "megatron-sp": _megatron_sp,
    "ulysses": _ulysses,
    "ring": _ring,
    "dsp": _dsp,
    "usp": _usp,
    "dsp-dsp": _dsp_mesh,
    "dsp-ulysses": _dsp_mesh,
}
#: Strategies whose share of a stage is the same in each layer.
_EVERY_LAYER_ALIKE = {"megatron-sp", "ulysses", "ring", "usp"}
