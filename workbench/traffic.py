"""What one rank sends in a step, by formula: every collective of the log, run-length encoded.

`closed_form_bytes` says how much; this says in how many collectives of which kind, where and how
large, which is what their latency and their wires depend on. A test holds it equal to the log,
record by record, for every strategy and option.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import NamedTuple

import torch

from workbench.closed_form import gradient_elements
from workbench.collectives import SENT_PER_INPUT_BYTE, Phase
from workbench.layout import shard_size
from workbench.mesh import DATA
from workbench.strategies import MESHED, STRATEGIES, Strategy, ranks_of
from workbench.strategies.base import count_of
from workbench.strategies.dsp import aside
from workbench.strategies.dsp_mesh import Place
from workbench.strategies.schedule import switch_elements, switches
from workbench.strategies.ulysses import sent_heads
from workbench.transformer import TransformerSpec


class Sent(NamedTuple):
    """Equal collectives of a step: what one is, and how many there are.

    The fields are those of `workbench.collectives.Collective`; ``count`` of them are alike.
    """

    kind: str
    axis: str
    phase: Phase
    stage: int | None
    input_bytes: int
    sent_bytes: int
    count: int


class Move(NamedTuple):
    """One collective of a forward pass, and how many of what kind its backward makes.

    ``elements`` are of the input buffer, ``back`` of the backward's; ``arranged`` says that it
    re-lays the residual stream ahead of a block.
    """

    kind: str
    axis: str
    stage: int
    elements: int
    count: int = 1
    back_kind: str = ""
    back: int | None = None
    back_count: int | None = None
    arranged: bool = False


def traffic(
    spec: TransformerSpec,
    cls: type[Strategy],
    *,
    p: int,
    dtype: str,
    shard: str | None,
    mesh: Mapping[str, int] | None = None,
    checkpoint: str = "none",
    switch: str = "inside",
    accumulate: int = 1,
    fsdp: bool | str = False,
) -> list[Sent]:
    """Every collective of one rank in one training step; the arguments must have been checked.

    Parameters
    ----------
    cls, shard : type of Strategy, str or None
        As `workbench.closed_form.prepared` returns them; ``cls`` must be `known`.
    spec, p, dtype, mesh, checkpoint, switch, accumulate, fsdp
        As for `fake_step`.

    Examples
    --------
    >>> from workbench.transformer import PRESETS
    >>> toy = traffic(PRESETS["toy-video"], STRATEGIES["dsp"], p=4, dtype="float32", shard="time")
    >>> [(s.kind, s.phase, s.stage, s.count) for s in toy if s.stage == 1]
    [('all_to_all', 'forward', 1, 2), ('all_to_all', 'backward', 1, 2)]
    """
    itemsize = getattr(torch, dtype).itemsize
    ranks, data = ranks_of(cls, p, mesh)
    found: Counter[tuple] = Counter()
    mine = replace(spec, batch=shard_size(spec.batch, data) // accumulate, valid={})
    for move in _moves(cls, mine, ranks, shard, own_axis(cls, mesh)):
        once = (move.kind, move.axis, "forward", move.stage, move.elements)
        found[once] += move.count * accumulate
        if checkpoint == "block" and not (move.arranged and switch == "outside"):
            found[(*once[:2], "backward", *once[3:])] += move.count * accumulate
        back = move.elements if move.back is None else move.back
        times = move.count if move.back_count is None else move.back_count
        again = (move.back_kind or move.kind, move.axis, "backward", move.stage, back)
        found[again] += times * accumulate
    sizes = dict(mesh or {own_axis(cls, mesh): p})
    sent = [_sent(*key, count, sizes.get(key[1], 1), itemsize)
            for key, count in found.items() if count]  # fmt: skip
    if fsdp and p > 1:
        return [*sent, *_cut_weights(spec, p, itemsize, accumulate, 1 if fsdp == "keep" else 2)]
    return [*sent, *_gradients(spec, cls, ranks, p, data, itemsize)]


def known(cls: type[Strategy]) -> bool:
    """Tell whether ``cls`` is one of the strategies here, with any of its options."""
    names = {(c.__module__, c.__qualname__) for c in (STRATEGIES | MESHED).values()}
    return (cls.__module__, cls.__qualname__) in names


def own_axis(cls: type[Strategy], mesh: Mapping[str, int] | None) -> str:
    """What the log calls the axis of a strategy that has one."""
    if not mesh:
        return "sp"
    own = [axis for axis in mesh if axis != DATA]
    return own[0] if own else cls.name


def _sent(kind, axis, phase, stage, elements, count, ranks, itemsize) -> Sent:
    numerator, denominator = SENT_PER_INPUT_BYTE[kind](ranks)
    size = elements * itemsize
    return Sent(kind, axis, phase, stage, size, size * numerator // denominator, count)


def _gradients(spec, cls, ranks, p, data, itemsize) -> Iterator[Sent]:
    everywhere, along_data = gradient_elements(spec, cls, ranks)
    own = count_of(ranks)
    for axis, count, parts in (("*", everywhere, own * data), (DATA, along_data, data)):
        if parts > 1 and count:
            size = shard_size(count, parts) * parts
            yield _sent("all_reduce", axis, "gradients", None, size, 1, parts, itemsize)


def _cut_weights(spec, p, itemsize, accumulate, gathers) -> Iterator[Sent]:
    """FSDP: each branch's weights are gathered, ``gathers`` times, and its gradients scattered."""
    stages = {place.name: place.index for place in replace(spec, num_layers=1).places()}
    groups: Counter[tuple] = Counter()
    for name, shape, layers in spec.weight_counts():
        branch = name.rsplit(".", 2)[0] if name.startswith("layers.") else ""
        groups[branch, stages.get(branch), layers] += shard_size(shape[0], p) * prod(shape[1:])
    alike: Counter[tuple] = Counter()
    for (_, stage, layers), part in groups.items():
        alike[stage, part] += layers * accumulate
    for (stage, part), count in alike.items():
        yield _sent("all_gather", "*", "weights", stage, part, count * gathers, p, itemsize)
        yield _sent("reduce_scatter", "*", "gradients", stage, part * p, count, p, itemsize)


def _moves(cls, spec, ranks, shard, axis) -> Iterator[Move]:
    """What one forward pass of ``spec`` sends, and its backward."""
    if count_of(ranks) == 1:
        return
    if spec.context_length and spec.context == "sharded" and cls.cuts():
        axes = {name: ranks[name] for name in cls.axes} or {axis: ranks}
        yield from _texts(cls, spec, axes)
    if cls.name in _ALONG_TWO:
        yield from _ALONG_TWO[cls.name](cls, spec, ranks, shard)
    elif cls.name in _ALONG_ONE:
        yield from _ALONG_ONE[cls.name](cls, spec, ranks, shard, axis)


def _texts(cls, spec, axes: Mapping[str, int]) -> Iterator[Move]:
    """Gathers of a text whose tokens are cut: of all of it by Megatron, else of keys and values."""
    width = spec.d_model if cls.cut_weights else 2 * spec.kv_heads * spec.channel
    length = spec.context_length
    back_count = 0 if cls.cut_weights else None
    for axis, ranks in axes.items():
        length = shard_size(length, ranks)
        part = spec.batch * length * width
        for stage in range(len(spec.stages)) if ranks > 1 else ():
            yield Move("all_gather", axis, stage, part, spec.num_layers, "reduce_scatter",
                       part * ranks, back_count)  # fmt: skip


def _branches(spec) -> Iterator[tuple[int, str]]:
    """The stage that each branch of a layer belongs to, and its kind."""
    stage = -1
    for kind, _ in spec.layer_branches():
        stage += kind == "attention"
        yield stage, kind


def _crossing(spec, shard) -> Iterator[int]:
    """The stages of a layer that attend along the cut dim."""
    return (number for number, stage in enumerate(spec.stages) if shard in stage)


def _tensor_parallel(cls, spec, p, shard, axis) -> Iterator[Move]:
    whole = prod(spec.stream.sizes.values())
    for stage, _ in _branches(spec):
        yield Move("all_reduce", axis, stage, whole, spec.num_layers)


def _megatron_sp(cls, spec, p, shard, axis) -> Iterator[Move]:
    part, layers = spec.local_elements(shard, p), spec.num_layers
    for stage, _ in _branches(spec):
        for kind, other in (("all_gather", "reduce_scatter"), ("reduce_scatter", "all_gather")):
            sizes = {"all_gather": part, "reduce_scatter": part * p}
            yield Move(kind, axis, stage, sizes[kind], layers, other, sizes[other])
        if cls.regather:  # the branch's input, a second time
            yield Move("all_gather", axis, stage, part, 0, back_count=layers)


def _exchanges(spec, p, stage, axis, part, packed=False) -> Iterator[Move]:
    """Ulysses' exchanges of q, k, v and o of a rank that has ``part`` elements of the stream."""
    if p == 1:
        return
    head, layers = part // spec.num_heads, spec.num_layers
    kv = head * sent_heads(spec, p)
    if packed:
        yield Move("all_to_all", axis, stage, part + 2 * kv, layers)
        yield Move("all_to_all", axis, stage, part, layers)
    else:
        yield Move("all_to_all", axis, stage, part, 2 * layers)
        yield Move("all_to_all", axis, stage, kv, 2 * layers)


def _ulysses(cls, spec, p, shard, axis) -> Iterator[Move]:
    for stage in _crossing(spec, shard):
        yield from _exchanges(spec, p, stage, axis, spec.local_elements(shard, p), cls.packed)


def _round(spec, p, stage, axis, kv) -> Iterator[Move]:
    """A ring's shifts: forward p - 1 of K and V; backward as many, and p of their gradients."""
    if p > 1:
        layers = spec.num_layers
        back_count = (2 * p - 1) * layers
        yield Move("ring_shift", axis, stage, kv, (p - 1) * layers, back_count=back_count)


def _ring(cls, spec, p, shard, axis) -> Iterator[Move]:
    kv = 2 * spec.local_elements(shard, p, cls.order) * spec.kv_heads // spec.num_heads
    for stage in _crossing(spec, shard):
        if cls.transfer == "ring":
            yield from _round(spec, p, stage, axis, kv)
        else:
            layers = spec.num_layers
            yield Move("all_gather", axis, stage, kv, layers, "reduce_scatter", kv * p)


def _dsp(cls, spec, p, shard, axis) -> Iterator[Move]:
    if cls.around == "attention":
        for number in _crossing(spec, shard):
            to = aside(spec, p, shard, spec.stages[number])
            part = switch_elements(spec, p, shard, to) * p // (p - 1)
            yield Move("all_to_all", axis, number, part, 2 * spec.num_layers)
        return
    stages = list(spec.stages) * spec.num_layers
    made = switches(cls.schedule, spec, p, shard, stages)
    moves = Counter((number % len(spec.stages), *dims) for number, *dims in made)
    for (number, before, after), count in moves.items():
        part = switch_elements(spec, p, before, after) * p // (p - 1)
        yield Move("all_to_all", axis, number, part, count, arranged=True)


def _usp(cls, spec, ranks, shard) -> Iterator[Move]:
    ulysses, ring = ranks["ulysses"], ranks["ring"]
    length = shard_size(spec.dims[shard], ring, cls.dealt(ring))
    others = spec.local_elements(shard, spec.dims[shard]) // spec.num_heads
    part = shard_size(length, ulysses) * others * spec.num_heads
    kv = 2 * sent_heads(spec, ulysses) // ulysses * length * others
    for stage in _crossing(spec, shard):
        yield from _exchanges(spec, ulysses, stage, "ulysses", part)
        yield from _round(spec, ring, stage, "ring", kv)


def _dsp_mesh(cls, spec, ranks, shard) -> Iterator[Move]:
    places = {axis: Place(ranks[axis]) for axis in cls.axes}
    layout = cls.first_layout(spec, places, shard)
    stages = list(spec.stages) * spec.num_layers
    for i, stage in enumerate(stages):
        number = i % len(spec.stages)
        for before, after in cls.moves(spec, places, layout, stage, stages[i + 1 :]):
            parts, layout = ranks[before.axis], after
            shape = list(before.local_shape(parts))
            cut = before.position(after.split)
            shape[cut] = shard_size(shape[cut], parts) * parts
            if parts > 1:
                yield Move("all_to_all", before.axis, number, prod(shape), arranged=True)
        if "ulysses" in cls.axes and layout.outer[0].dim in stage:
            part = prod(layout.local_shape(ranks["dsp"]))
            once = replace(spec, num_layers=1)
            yield from _exchanges(once, ranks["ulysses"], number, "ulysses", part)


_ALONG_ONE = {
    "megatron-tp": _tensor_parallel,
    "megatron-sp": _megatron_sp,
    "ulysses": _ulysses,
    "ring": _ring,
    "dsp": _dsp,
}
_ALONG_TWO = {"usp": _usp, "dsp-dsp": _dsp_mesh, "dsp-ulysses": _dsp_mesh}
