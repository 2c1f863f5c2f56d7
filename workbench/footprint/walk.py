"""A walk over the blocks of one rank; each kind of block is gone through once and then repeated."""

from collections.abc import Sequence
from itertools import repeat
from typing import NamedTuple

from workbench.footprint.branches import attention, mlp
from workbench.footprint.ledger import Ghost, Ledger, Shape, Stretch, strides_of
from workbench.footprint.moves import back, move
from workbench.footprint.projections import Moves, Rank
from workbench.footprint.sharded import Backward, Forward, emit
from workbench.layout import Layout
from workbench.strategies import DSP, DSPxDSP, Strategy

#: What these do ahead of a stage depends on the next use of each dim: no more than so many layers
#: on. Of another strategy it may depend on all.
AHEAD, NEAR = 2, (DSP.arrange, DSPxDSP.arrange)


class Gradient(NamedTuple):
    """What a block is given in the backward: the gradient of its output."""

    shape: Shape
    strides: Shape
    size: int


class Block(NamedTuple):
    """An attention with the MLP after it, if one follows; all that its buffers depend on.

    ``strides`` are those of the stream that it is given.
    """

    number: int
    strides: Shape
    layout: Layout
    after: Layout
    moves: Moves
    branches: tuple


class Walk:
    """The blocks of a rank's model, forward and backward.

    Parameters
    ----------
    rank : Rank
        The rank.
    itemsize : int
        Bytes of one element.
    checkpoint, switch : str
        As for `fake_step`.
    """

    def __init__(self, rank: Rank, itemsize: int, checkpoint: str, switch: str):
        self.rank, self.itemsize = rank, itemsize
        self.again, self.inside = checkpoint == "block", switch == "inside"
        self.arranges = type(rank.strategy).arrange is not Strategy.arrange
        near = type(rank.strategy).arrange in NEAR
        self.near = near and getattr(rank.strategy, "schedule", None) != "bytes"
        self._layouts: list[Layout] = []
        self._blocks: dict[tuple, Block] = {}
        self._spare: dict[int, Run] = {}
        self._forward: dict[tuple, Stretch] = {}
        self._after: dict[tuple, tuple] = {}

    def blocks(self, spec) -> list[tuple[int, Block]]:
        """(layer, block) of all blocks. What a layer does depends on the next ones at most."""
        layout, found, known = self._same(self.rank.strategy.start), [], {}
        strides = strides_of(self.shape(layout))
        branches = _layer_blocks(spec)
        for layer in range(spec.num_layers):
            ahead = spec.num_layers - layer - 1 if self.arranges else 0
            ahead = min(ahead, AHEAD) if self.near else ahead
            key = (id(layout), strides, ahead)
            if key not in known:
                known[key] = self._layer(layout, strides, branches, ahead)
            mine, layout, strides = known[key]
            found += [(layer, block) for block in mine]
        return found

    def _layer(self, layout, strides, per_layer, ahead) -> tuple[list[Block], Layout, Shape]:
        strategy, mine = self.rank.strategy, []
        stages = [branches[0][1] for branches in per_layer]
        for i, branches in enumerate(per_layer):
            before, moves = layout, ()
            if self.arranges:
                upcoming = [*stages[i + 1 :], *stages * ahead]
                given = (self.shape(layout), layout, stages[i], upcoming)
                (_, layout), moves = self.rank.probe.noted(strategy.arrange, *given)
                layout = self._same(layout)
            through = [(p, id(self._same(a)), id(self._same(b))) for p, a, b in moves]
            key = (id(before), strides, id(layout), *through, i)
            if key not in self._blocks:
                block = Block(len(self._blocks), strides, before, layout, moves, branches)
                self._blocks[key], self._spare[block.number] = block, self._run(block)
            mine.append(self._blocks[key])
            strides = self.leaves(mine[-1]).strides
        return mine, layout, strides

    def leaves(self, block: Block) -> Ghost:
        """The stream after the block, before its backward has been gone through."""
        return self._spare[block.number].y

    def _same(self, layout: Layout) -> Layout:
        """One object for all layouts that are equal: cheap to compare."""
        for known in self._layouts:
            if known is layout or known == layout:
                return known
        self._layouts.append(layout)
        return layout

    def shape(self, layout: Layout) -> Shape:
        """This rank's part of a tensor."""
        return layout.local_shape(self.rank.strategy.along(layout).size)

    def forward(self, block: Block, leaf: bool, cut: Sequence[Forward] = ()) -> Stretch:
        """What the block allocates and keeps; a ``leaf`` is the step's input, and stays alive.

        ``cut`` is what FSDP does around each branch.
        """
        key = (block.number, leaf, cut)
        if key not in self._forward:
            if cut:
                self._spare[block.number] = self._run(block, cut)
            run = self._spare[block.number]
            self._forward[key] = Stretch.of(run.ledger, 0, 0, run.y.cell, leaf)
        return self._forward[key]

    def backward(
        self, block: Block, leaf: bool, grad: Gradient, adds: bool, cut: Sequence[Backward] = ()
    ) -> tuple[Stretch, Gradient]:
        """The same of the backward, and the gradient that it leaves; see `Ledger` for ``adds``."""
        key = (block.number, grad, adds, cut)
        if key not in self._after:
            run = self._spare.pop(block.number, None) or self._run(block)
            start, run.ledger.adds = len(run.ledger.entries), adds
            run.ledger.waiting = [] if cut else None
            ends = self._back(run, block, grad, cut)
            self._after[key] = run.ledger, start, ends, {}
        ledger, start, (taken, left), found = self._after[key]
        if leaf not in found:
            found[leaf] = Stretch.of(ledger, start, taken.cell, left.cell, leaf)
        return found[leaf], Gradient(left.shape, left.strides, ledger.sizes[left.cell])

    def _run(self, block: Block, cut: Sequence[Forward] = ()) -> "Run":
        """The block's forward; in a checkpointed one only its input is kept."""
        ledger = Ledger(self.itemsize, keep=not self.again, early=self.again)
        ledger.where = block.branches[0][-1]
        x = ledger.given("stream", self.shape(block.layout), block.strides)
        if not (self.again and self.inside):
            x = self._arranged(ledger, block, x)
        start = ledger.hold(x) if self.again else None
        if self.again and self.inside:
            x = self._arranged(ledger, block, ledger.hold(x))
        y, tails = self._branches(ledger, block, x, cut)
        if self.again and self.inside:
            ledger.drop(start)
        return Run(ledger, start, y, tails)

    def _arranged(self, ledger: Ledger, block: Block, x: Ghost) -> Ghost:
        """The stream as the strategy re-lays it; the caller's reference goes over to it."""
        for step in block.moves:
            before, x = x, move(ledger, x, *step)
            ledger.drop(before)
        return x

    def _branches(self, ledger: Ledger, block: Block, x: Ghost, cut: Sequence[Forward] = ()):
        tails = []
        around = cut or repeat(Forward((), ()))
        for (kind, stage, ledger.where), fsdp in zip(block.branches, around, strict=False):
            before = x
            emit(ledger, fsdp.before)
            if kind == "attention":
                x, tail = attention(ledger, self.rank, x, block.after, stage)
            else:
                x, tail = mlp(ledger, self.rank, x, block.after)
            emit(ledger, fsdp.after)
            ledger.drop(before)
            tails.append(tail)
        return x, tails

    def _back(
        self, run: "Run", block: Block, grad: Gradient, cut: Sequence[Backward]
    ) -> tuple[Ghost, Ghost]:
        ledger, tails = run.ledger, run.tails
        ledger.where = block.branches[-1][-1]
        given = g = ledger.given("gradient of stream", *grad)
        emit(ledger, cut[-1].before if cut else ())
        mine = tails[-1].head(g)
        if self.again:
            ledger.keep = True
            x = ledger.hold(run.start)
            if self.inside:
                x = self._arranged(ledger, block, x)
            y, tails = self._branches(ledger, block, x, [each.again for each in cut])
            ledger.drop(y)
        for i in reversed(range(len(tails))):
            ledger.where = block.branches[i][-1]
            if i < len(tails) - 1:
                emit(ledger, cut[i].before if cut else ())
                mine = tails[i].head(g)
            last = (run.start,) if self.again and i == 0 else ()
            g = tails[i].rest(g, mine, last)
            if cut:
                emit(ledger, cut[i].until)
                held = ledger.summed()
                emit(ledger, cut[i].after)
                ledger.drop(*held)
        for step in reversed(block.moves):
            before, g = g, back(ledger, g, *step)
            ledger.drop(before)
        return given, g


class Run(NamedTuple):
    """A block's forward that awaits its backward; ``start`` is what a checkpoint keeps."""

    ledger: Ledger
    start: Ghost | None
    y: Ghost
    tails: list


def _layer_blocks(spec) -> list[tuple]:
    """The blocks of one layer: each (kind, stage, name) of its branches."""
    blocks: list[list] = []
    for place in spec.places():
        if place.layer:
            break
        branch = (place.kind, place.stage, place.name.partition(".0.")[2])
        if place.kind == "attention":
            blocks.append([branch])
        else:
            blocks[-1].append(branch)
    return [tuple(block) for block in blocks]
