"""What one rank computes in a step, by formula: its kernels, each with its flops and bytes.

Matrix products and attention are those that a faked step counts, to the flop (tested); of ranks
that have unequally much to do the busiest is meant. Bytes are what a kernel reads and writes of
main memory if nothing stays in a cache between two of them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Literal, NamedTuple

import torch

from workbench.layout import shard_size
from workbench.shares import Share, shares
from workbench.strategies import Strategy, ranks_of
from workbench.transformer import TransformerSpec


class Kernel(NamedTuple):
    """Equal kernels: what one computes and moves, and how many there are.

    ``redo``: which checkpoint computes it again; a block's computes all of its forward again.
    ``rows``: queries of an attention, of all its heads. ``queries`` and ``keys`` are those of one
    of its sequences.
    """

    kind: Literal["matmul", "attention", "elementwise"]
    phase: Literal["forward", "backward"]
    stage: int
    flops: float
    bytes: float
    count: float
    redo: Literal["", "block", "selective"] = ""
    rows: float = 0.0
    queries: float = 0.0
    keys: float = 0.0


def kernels(
    spec: TransformerSpec,
    cls: type[Strategy],
    *,
    p: int,
    dtype: str,
    shard: str | None,
    mesh: Mapping[str, int] | None = None,
    checkpoint: str = "none",
    accumulate: int = 1,
) -> list[Kernel]:
    """Every kernel of one rank in one training step; arguments as of `workbench.traffic.traffic`.

    Examples
    --------
    >>> from workbench.strategies import STRATEGIES
    >>> from workbench.transformer import PRESETS
    >>> toy = PRESETS["toy-video"]
    >>> found = kernels(toy, STRATEGIES["single"], p=1, dtype="float32", shard=None)
    >>> sum(k.flops * k.count for k in found if k.kind != "elementwise") == toy.flops
    True
    """
    itemsize = getattr(torch, dtype).itemsize
    ranks, data = ranks_of(cls, p, mesh)
    mine = replace(spec, batch=shard_size(spec.batch, data) // accumulate, valid={})
    text = mine.context_length
    if mine.context == "sharded" and cls.cuts_sequence and not cls.cut_weights:
        for size in [ranks] if isinstance(ranks, int) else [ranks[axis] for axis in cls.axes]:
            text = shard_size(text, size)
    found: list[Kernel] = []
    for (number, share), count in shares(cls, mine, ranks, shard).items():
        for kernel in of_stage(mine, number, share, itemsize, text):
            found.append(kernel._replace(count=kernel.count * count * accumulate))
    if checkpoint != "none":
        again = {"block": ("block", "selective"), "selective": ("selective",)}[checkpoint]
        found += [k._replace(phase="backward") for k in found if k.redo in again]
    return found


def of_stage(
    spec: TransformerSpec, number: int, share: Share, itemsize: int, text: int
) -> Iterator[Kernel]:
    """Yield the kernels of one stage of one layer: its attention, cross-attention and MLP.

    ``text`` tokens of each sample's text are projected by this rank.
    """
    last = number == len(spec.stages) - 1
    make = _Maker(spec, number, share, itemsize, text)
    yield from make.attention()
    if spec.context_length:
        yield from make.cross()
    if spec.mlp_per == "stage" or last:
        yield from make.mlp()


def of_attention(spec: TransformerSpec, number: int, share: Share, itemsize: int) -> list[Kernel]:
    """Kernels of one attention without its projections: what benchmarks of attention time."""
    return list(_Maker(spec, number, share, itemsize, 0).core())


class _Maker(NamedTuple):
    """Makes the kernels of one stage."""

    spec: TransformerSpec
    number: int
    share: Share
    itemsize: int
    text: int

    def _kernel(
        self, kind, phase, flops, elements, count=1, redo="block", sizes=(0, 0, 0)
    ) -> Kernel:
        redo = redo if phase == "forward" else ""
        return Kernel(
            kind, phase, self.number, flops, elements * self.itemsize, count, redo, *sizes
        )

    def _linear(self, tokens, fan_in, fan_out, count=1, back=2, redo="block") -> Iterator[Kernel]:
        """A linear map; backward, the gradients of its input and of its weight."""
        flops = 2 * tokens * fan_in * fan_out
        moved = tokens * (fan_in + fan_out) + fan_in * fan_out
        yield self._kernel("matmul", "forward", flops, moved, count, redo)
        yield self._kernel("matmul", "backward", flops, moved, back * count)

    def _around(self) -> Iterator[Kernel]:
        """A branch's norm (reads and writes once), its bias (the same) and residual (3 in all).

        Backward the norm reads two and writes one; two gradients meet; a bias sums one.
        """
        stream = self.share.tokens * self.spec.d_model
        for phase, passes in (("forward", (2, 2, 3)), ("backward", (3, 3, 1))):
            for times in passes:
                yield self._kernel("elementwise", phase, 0, times * stream)

    def attention(self) -> Iterator[Kernel]:
        spec, share = self.spec, self.share
        width, kv = spec.d_model // share.width, spec.kv_heads * spec.channel // share.width
        yield from self._around()
        yield from self._linear(share.inside, spec.d_model, width)
        yield from self._linear(share.inside, spec.d_model, kv, 2)
        yield from self._linear(share.inside, width, spec.d_model)
        yield self._kernel("elementwise", "backward", 0, share.inside * (width + 2 * kv) / 3, 3)
        yield from self.core()

    def core(self) -> Iterator[Kernel]:
        """Attention itself, and the sums of a ring."""
        spec, share = self.spec, self.share
        q = share.groups * share.heads * share.queries * spec.channel
        kv = share.groups * share.kv_heads * share.keys * spec.channel
        rows = share.groups * share.heads * share.queries
        flops = 4 * share.groups * share.heads * share.pairs * spec.channel
        yield from self._softmax(flops, rows, q, kv)
        if share.hops > 1:
            yield from self._merges(q, kv)

    def _softmax(self, flops, rows, q, kv) -> Iterator[Kernel]:
        """Fused attention: reads q, k and v, writes o; backward reads those and two gradients."""
        hops = self.share.hops
        sizes = rows, self.share.queries, self.share.keys / hops
        moved = (2 * q + 2 * kv / hops, 4 * q + 4 * kv / hops)
        yield self._kernel("attention", "forward", flops / hops, moved[0], hops, sizes=sizes)
        yield self._kernel("attention", "backward", 2 * flops / hops, moved[1], hops, sizes=sizes)

    def _merges(self, q, kv) -> Iterator[Kernel]:
        """A ring's sums: of outputs in float32, and backward of all three gradients."""
        wide, part = 4 * q / self.itemsize, kv / self.share.hops
        yield self._kernel("elementwise", "forward", 0, 4 * wide + q, self.share.hops)
        yield self._kernel("elementwise", "backward", 0, 2 * wide + q + 6 * part, self.share.hops)

    def cross(self) -> Iterator[Kernel]:
        spec, share = self.spec, self.share
        width, kv = spec.d_model // share.width, spec.kv_heads * spec.channel // share.width
        tokens = share.inside if share.width > 1 else share.tokens
        yield from self._around()
        yield from self._linear(tokens, spec.d_model, width)
        yield from self._linear(spec.batch * self.text, spec.d_model, kv, 2, back=1)
        yield from self._linear(tokens, width, spec.d_model)
        q, kv = tokens * width, spec.batch * spec.context_length * kv
        flops = 4 * tokens * spec.context_length * width
        sizes = q / spec.channel, tokens / spec.batch, spec.context_length
        yield self._kernel("attention", "forward", flops, 2 * q + 2 * kv, sizes=sizes)
        yield self._kernel("attention", "backward", 2 * flops, 4 * q + 4 * kv, sizes=sizes)

    def mlp(self) -> Iterator[Kernel]:
        spec, share = self.spec, self.share
        hidden = spec.d_model * spec.mlp_ratio // share.width
        tokens = share.inside if share.width > 1 else share.tokens
        yield from self._around()
        yield from self._linear(tokens, spec.d_model, hidden, redo="selective")
        yield from self._linear(tokens, hidden, spec.d_model)
        yield self._kernel("elementwise", "forward", 0, 2 * tokens * hidden, redo="selective")
        for passes in (3, 1):  # of the activation; the sum of the bias's gradient
            yield self._kernel("elementwise", "backward", 0, passes * tokens * hidden)
