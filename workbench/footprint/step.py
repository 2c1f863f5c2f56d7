"""All that one rank's step allocates: its blocks, the loss, the input's gradient, the bucket."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod

import torch

from workbench.footprint.attends import ATTENDS
from workbench.footprint.ledger import Ledger, NotCovered, Shape, Stretch, sum_strides
from workbench.footprint.moves import Probe
from workbench.footprint.projections import Rank
from workbench.footprint.sharded import Sharded, alone, group_bytes
from workbench.footprint.walk import Block, Gradient, Walk
from workbench.layout import Layout, shard_size
from workbench.mesh import Mesh
from workbench.rank import own_comm
from workbench.strategies import MESHED, STRATEGIES, Strategy, mesh_of, ranks_of
from workbench.strategies.base import count_of
from workbench.transformer import TransformerSpec


class StepForm:
    """The step of rank 0; see `RankStep`.

    Attributes
    ----------
    weights, tensors : int
        Bytes of this rank's weights, and how many tensors they are.
    """

    def __init__(
        self, spec, cls, p, dtype, shard, mesh, *, checkpoint, switch, accumulate, fsdp
    ):  # fmt: skip
        _check_covered(spec, cls)
        self.itemsize, self.accumulate, self.p = getattr(torch, dtype).itemsize, accumulate, p
        mesh = mesh_of(cls, p, mesh)
        ranks, self.data = ranks_of(cls, p, mesh)
        own = count_of(ranks)
        self.spec = replace(spec, batch=shard_size(spec.batch, self.data) // accumulate)
        probe = Probe(p)
        self.strategy = cls(
            own_comm(cls, probe, Mesh(probe, mesh) if mesh else None), self.spec, shard
        )
        cut = own if cls.cut_weights else 1
        kv_width = spec.kv_heads * spec.channel
        widths = (spec.d_model // cut, kv_width // cut, spec.d_model * spec.mlp_ratio // cut)
        cut_further = fsdp and p > 1
        # FSDP is faked on a CPU, whose norms keep their statistics in the dtype of activations.
        statistic = self.itemsize if cut_further else max(4, self.itemsize)
        rank = Rank(self.strategy, probe, widths, statistic, checkpoint == "selective")
        self.walk = Walk(rank, self.itemsize, checkpoint, switch)
        self.start = self.walk.shape(self.strategy.start)
        self._count_weights(spec, own)
        self.fsdp = None
        if cut_further:
            groups = group_bytes(spec, p, self.itemsize)
            self.weights = sum(groups) // p
            self.fsdp = Sharded(groups, p, fsdp == "keep")

    def _count_weights(self, spec: TransformerSpec, own: int) -> None:
        self.replicated = self.cut = self.tensors = 0
        for name, shape, times in spec.weight_counts():
            self.tensors += times
            if self.strategy.cut_dim(name) is None:
                self.replicated += times * prod(shape)
            else:
                self.cut += times * prod(shape) // own
        self.weights = (self.replicated + self.cut) * self.itemsize

    def held(self) -> Mapping[str, int]:
        """What is alive before the step [bytes]."""
        return {"weights": self.weights, "input": self.accumulate * self._bytes(self.start)}

    def _bytes(self, shape: Shape) -> int:
        return prod(shape) * self.itemsize

    def stretches(self) -> Iterator[tuple[str, int | None, Stretch]]:
        """(moment, layer, stretch) of all parts of the step, in order."""
        blocks = self.walk.blocks(self.spec)
        loss, last = self._loss(blocks[-1][1])
        for adds, times in ((False, 1), (True, self.accumulate - 1)):
            if times:
                part = [*self._forward(blocks), ("loss", None, loss)]
                part += self._backward(blocks, last, adds)
                for _ in range(times):
                    yield from part
        yield "end", None, self._end(self.walk.shape(blocks[-1][1].after))

    def _forward(self, blocks) -> Iterator[tuple[str, int | None, Stretch]]:
        done = 0
        for i, (layer, block) in enumerate(blocks):
            count = len(block.branches)
            cut = self.fsdp.forward(done, count) if self.fsdp else ()
            done += count
            yield "forward", layer, self.walk.forward(block, i == 0, cut)
        if self.fsdp:
            yield "forward", None, alone(self.fsdp.forward_ends())

    def _backward(self, blocks, grad, adds) -> Iterator[tuple[str, int | None, Stretch]]:
        first = sum(len(block.branches) for _, block in blocks)
        for i in reversed(range(len(blocks))):
            layer, block = blocks[i]
            count, cut = len(block.branches), ()
            first -= count
            if self.fsdp:
                cut = self.fsdp.backward(first, count, self.walk.again, adds)
            found, grad = self.walk.backward(block, i == 0, grad, adds, cut)
            yield "backward", layer, found
        yield "backward", None, self._input(grad, adds)
        if self.fsdp:
            yield "backward", None, alone(self.fsdp.backward_ends())

    def _loss(self, block: Block) -> tuple[Stretch, Gradient]:
        """Mean square of the output without its padding, and its gradient."""
        ledger = Ledger(self.itemsize)
        shapes, strides = self._trimmed(block.after), self.walk.leaves(block).strides
        squares = ledger.new("squares", shapes[-1])
        total = ledger.new("loss", ())
        ledger.drop(squares)
        ledger.new("loss", ())  # stays
        ledger.drop(total)
        ledger.new("gradient of loss", ())  # until the backward is through
        scaled = ledger.new("gradient of loss", ())
        power, product, grad = (ledger.new("squares", shapes[-1]) for _ in range(3))
        grad = grad._replace(strides=sum_strides(shapes[-1], strides, strides))
        ledger.drop(power, product, scaled)
        for shape in (shapes[-1], *shapes[-2::-1]):
            wider = ledger.new("gradient of stream", shape)
            ledger.drop(grad)
            grad = wider
        found = Stretch.of(ledger, left=grad.cell)
        return found, Gradient(grad.shape, grad.strides, self._bytes(grad.shape))

    def _trimmed(self, layout: Layout) -> list[Shape]:
        """The output's shape, and again after each dim of which rank 0 has padding."""
        along, shapes = self.strategy.along(layout), [self.walk.shape(layout)]
        for dim in {layout.split, *(cut.dim for cut in layout.outer)} - {None}:
            held, at = len(layout.held(dim, along.rank, along.size)), layout.position(dim)
            if held < shapes[-1][at]:
                shapes.append((*shapes[-1][:at], held, *shapes[-1][at + 1 :]))
        return shapes

    def _input(self, grad: Gradient, adds: bool) -> Stretch:
        """The gradient of this part of the samples becomes one of all of them."""
        ledger = Ledger(self.itemsize)
        ones = ledger.given("gradient of loss", ())
        mine = ledger.given("gradient of stream", *grad)
        zeros = [ledger.new("zeros", self.start) for _ in range(self.accumulate - 1)]
        whole = ledger.new("gradient of input", (self.accumulate, *self.start))
        ledger.drop(*zeros, mine, ones)
        if adds:
            ledger.drop(whole)
        return Stretch.of(ledger, taken=mine.cell)

    def _end(self, shape: Shape) -> Stretch:
        """Sums of weights' gradients, as `Comm.sum_gradients` makes them; then the outputs."""
        ledger = Ledger(self.itemsize)
        everywhere = self.replicated if self.strategy.start.split is not None else 0
        rest = self.replicated + self.cut - everywhere
        for count, ranks in ((everywhere, self.p), (rest, self.data)):
            if ranks > 1 and count and not self.fsdp:
                flat = ledger.new("bucket", (count,))
                if count % ranks:
                    padded = ledger.new("bucket", (shard_size(count, ranks) * ranks,))
                    ledger.drop(flat)
                    flat = padded
                ledger.drop(flat)
        ledger.new("outputs", (self.accumulate, *shape))
        ledger.new("loss", (self.accumulate,))
        ledger.new("loss", ())
        return Stretch.of(ledger)


def _check_covered(spec: TransformerSpec, cls: type[Strategy]) -> None:
    for hook in ("arrange", "inside", "enter", "leave"):
        known = {getattr(each, hook) for each in (STRATEGIES | MESHED).values()}
        if getattr(cls, hook) not in known:
            raise NotCovered(f"{hook} as overridden")
    if cls.attend not in ATTENDS:
        raise NotCovered(f"the attention ({cls.attend.__qualname__})")
    if spec.context_length:
        raise NotCovered(f"context_length={spec.context_length}")
    if spec.valid:
        raise NotCovered(f"valid={spec.valid}")
    if spec.positions != "none":
        raise NotCovered(f"positions={spec.positions!r}")
    for stage in spec.stages:
        if stage.window is not None:
            raise NotCovered(f"window={stage.window}")
