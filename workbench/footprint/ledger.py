"""A ledger of live buffers: what a piece of a step allocates and lets go of, in order.

A `Ghost` is what torch knows of a tensor but for its values: a shape, strides, and the storage that
it looks into. Whether an op copies or makes a view follows from shape and strides alone, so the
bytes of a step follow by arithmetic.
"""

from collections.abc import Sequence
from itertools import accumulate
from math import prod
from typing import NamedTuple

Shape = tuple[int, ...]


class NotCovered(Exception):
    """What the closed form leaves to a faked step."""


class Ghost(NamedTuple):
    """A tensor without values: shape, strides [elements], and the number of its storage."""

    shape: Shape
    strides: Shape
    cell: int

    def permuted(self, order: Sequence[int]) -> "Ghost":
        """As `Tensor.permute`."""
        shape, strides = self.shape, self.strides
        return Ghost(
            tuple([shape[i] for i in order]), tuple([strides[i] for i in order]), self.cell
        )

    def moved(self, source: int, to: int) -> "Ghost":
        """As `Tensor.movedim`, for positions that count from the front."""
        order = [i for i in range(len(self.shape)) if i != source]
        order.insert(to, source)
        return self.permuted(order)

    def narrowed(self, dim: int, size: int) -> "Ghost":
        """The first ``size`` entries along ``dim``, as a view."""
        return self._replace(shape=(*self.shape[:dim], size, *self.shape[dim + 1 :]))

    @property
    def contiguous(self) -> bool:
        """Are the entries one after another? Strides of dims of one entry don't matter."""
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size != 1:
                if stride != expected:
                    return False
                expected *= size
        return True

    def viewed(self, shape: Shape) -> "Ghost | None":
        """As `Tensor.view`; ``None`` where only a copy has this shape."""
        strides = view_strides(self.shape, self.strides, shape)
        return None if strides is None else Ghost(shape, strides, self.cell)


def strides_of(shape: Shape) -> Shape:
    """Strides of a contiguous tensor."""
    strides, stride = [1], 1
    for size in shape[:0:-1]:
        stride *= size
        strides.append(stride)
    return tuple(strides[::-1]) if shape else ()


def view_strides(shape: Shape, strides: Shape, wanted: Shape) -> Shape | None:
    """Strides of a view of ``wanted`` shape, if there is one: dims merge where they follow."""
    merged = []  # runs of dims that are one after another: [size, innermost stride]
    for size, stride in zip(shape, strides, strict=True):
        if size == 1:
            continue
        if merged and merged[-1][1] == size * stride:
            merged[-1] = [merged[-1][0] * size, stride]
        else:
            merged.append([size, stride])
    found, left, stride = [], 1, 1
    for size in reversed(wanted):
        if size == 1:
            found.append(stride)
            continue
        if left == 1:
            left, stride = merged.pop()
        if left % size:
            return None
        found.append(stride)
        left, stride = left // size, stride * size
    return tuple(reversed(found))


def sum_strides(shape: Shape, first: Shape, second: Shape) -> Shape:
    """Strides of the sum of two tensors; those of dims of one entry don't matter.

    Its dims lie in the order of the first tensor's, and where that is open, of the second's.
    """
    dims = [i for i in reversed(range(len(shape))) if shape[i] > 1]
    dims.sort(key=lambda i: (first[i], second[i]))
    strides, stride = [1] * len(shape), 1
    for i in dims:
        strides[i], stride = stride, stride * shape[i]
    return tuple(strides)


class Ledger:
    """Allocations and releases in order, by counting who still refers to each storage.

    Parameters
    ----------
    itemsize : int
        Bytes of one element of weights and activations.
    keep : bool
        Does autograd keep what the backward needs? Not in the forward of a checkpointed block.
    adds : bool
        Are there gradients of weights already, to which further ones are added?
    early : bool
        A block that is computed again lets go of what it kept a little sooner.
    """

    def __init__(self, itemsize: int, keep: bool = True, adds: bool = False, early: bool = False):
        self.itemsize, self.keep, self.adds, self.early = itemsize, keep, adds, early
        self.where = ""
        self.names: list[tuple[str, str]] = []
        self.sizes: list[int] = []
        self.counts: list[int] = []
        #: The storage that was allocated, or ~ of the one that was let go of.
        self.entries: list[int] = []
        self._pending: list[Ghost] = []
        #: Gradients that await `summed`, if weights are cut.
        self.waiting: list[Ghost] | None = None

    def given(self, name: str, shape: Shape, strides: Shape | None = None, size: int = 0) -> Ghost:
        """A tensor that is alive already, of which the caller has one reference."""
        self.names.append((self.where, name))
        self.sizes.append(size or prod(shape) * self.itemsize)
        self.counts.append(1)
        return Ghost(shape, strides or strides_of(shape), len(self.sizes) - 1)

    def new(self, name: str, shape: Shape, itemsize: int | None = None) -> Ghost:
        """Allocate a contiguous tensor; the caller has one reference to it."""
        cell = len(self.sizes)
        self.names.append((self.where, name))
        self.sizes.append(prod(shape) * (itemsize or self.itemsize))
        self.counts.append(1)
        self.entries.append(cell)
        return Ghost(shape, strides_of(shape), cell)

    def added(self, a: Ghost, b: Ghost, name: str) -> Ghost:
        """Allocate their sum."""
        strides = sum_strides(a.shape, a.strides, b.strides)
        return self.new(name, a.shape)._replace(strides=strides)

    def hold(self, ghost: Ghost) -> Ghost:
        """One more reference to it."""
        self.counts[ghost.cell] += 1
        return ghost

    def save(self, *ghosts: Ghost) -> None:
        """Autograd refers to them until the backward, if it keeps anything."""
        if self.keep:
            for ghost in ghosts:
                self.counts[ghost.cell] += 1

    def drop(self, *ghosts: Ghost) -> None:
        """One reference less to each; without any it is let go of."""
        for ghost in ghosts:
            cell = ghost.cell
            self.counts[cell] -= 1
            if not self.counts[cell]:
                self.entries.append(~cell)

    def reshaped(self, ghost: Ghost, shape: Shape, name: str) -> Ghost:
        """As `Tensor.reshape`, with one more reference, be it to a view or to a copy."""
        view = ghost.viewed(shape)
        return self.new(name, shape) if view is None else self.hold(view)

    def packed(self, ghost: Ghost, name: str) -> Ghost:
        """As `Tensor.contiguous`, with one more reference."""
        return self.hold(ghost) if ghost.contiguous else self.new(name, ghost.shape)

    def gradient(self, shape: Shape) -> None:
        """The gradient of a weight. Added to an older one it is let go of by `settle`."""
        found = self.new("gradients", shape)
        if self.waiting is not None:
            self.waiting.append(found)
        elif self.adds:
            self._pending.append(found)

    def settle(self) -> None:
        """Gradients that were added to older ones are let go of."""
        self.drop(*self._pending)
        self._pending.clear()

    def summed(self) -> list[Ghost]:
        """The gradients of a branch, copied into FSDP's buffer, are let go of, but for one.

        That one is returned: torch's loop over them leaves the last weight's in a variable, and
        the last weight of a branch is the bias that has the first gradient.
        """
        last, *others = self.waiting
        self.drop(*others)
        self.waiting.clear()
        return [last]


class Stretch(NamedTuple):
    """A part of a step: some entries of a ledger.

    Attributes
    ----------
    peak, net : int
        The most that is alive during it, and what remains, both above its start [bytes].
    taken, left : int or None
        The storage that it takes over from the stretch before, and the one that it leaves to the
        stretch after.
    """

    ledger: Ledger
    entries: Sequence[int]
    peak: int
    net: int
    taken: int | None
    left: int | None

    @staticmethod
    def of(ledger: Ledger, start=0, taken=None, left=None, lasting=False) -> "Stretch":
        """The entries from ``start`` up to now. ``lasting``: what was given first stays alive."""
        entries, sizes = ledger.entries[start:], ledger.sizes
        if lasting:
            entries = [entry for entry in entries if entry != ~0]
        levels = list(accumulate([sizes[e] if e >= 0 else -sizes[~e] for e in entries]))
        peak, net = max(levels, default=0), levels[-1] if levels else 0
        return Stretch(ledger, entries, peak, net, taken, left)
