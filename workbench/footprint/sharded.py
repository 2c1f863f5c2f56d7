"""What torch's FSDP makes and lets go of around each branch, in the order in which it does so.

`workbench.fsdp` makes a group of each branch. Ahead of it the group's weights are gathered into one
buffer and copied out into whole weights; after it these go. In the backward the group before is
gathered while a branch is computed, and a branch's gradients are copied into one buffer and summed.
Written after torch 2.13's `FSDPParamGroup`; tests hold it equal to faked and real steps.
"""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from workbench.footprint.ledger import Ledger, Stretch
from workbench.layout import shard_size
from workbench.transformer import TransformerSpec

#: What is made (bytes) or let go of (minus bytes), by name.
Events = tuple[tuple[str, int], ...]
#: Where buffers of FSDP are said to be: they outlive the branch that made them.
FSDP = "fsdp"


class Forward(NamedTuple):
    """Ahead of a branch's forward, and after it."""

    before: Events
    after: Events


class Backward(NamedTuple):
    """Ahead of a branch's backward; after it, until its gradients go, and what follows.

    ``again`` is around its forward, where a checkpoint runs that in the backward.
    """

    before: Events
    until: Events
    after: Events
    again: Forward = Forward((), ())


def emit(ledger: Ledger, events: Events) -> None:
    """Write events into a ledger."""
    where, ledger.where = ledger.where, FSDP
    for name, size in events:
        if size > 0:
            ledger.new(name, (size,), 1)
        else:
            ledger.drop(ledger.given(name, (), size=-size))
    ledger.where = where


def alone(events: Events) -> Stretch:
    """A part of a step in which nothing else happens."""
    ledger = Ledger(1)
    emit(ledger, events)
    return Stretch.of(ledger)


def group_bytes(spec: TransformerSpec, p: int, itemsize: int) -> list[int]:
    """Whole weights of each branch's group, padded so that ``p`` divides each [bytes]."""
    shapes = {name: (shard_size(shape[0], p) * p, *shape[1:])
              for name, shape, _ in spec.weight_counts()}  # fmt: skip
    layer = [
        sum(prod(shape) for name, shape in shapes.items() if name.startswith(f"{place.name}."))
        for place in spec.places()
        if place.layer == 0
    ]
    return [itemsize * size for size in layer] * spec.num_layers


class Sharded:
    """The state of all groups of a rank while its step goes on.

    Parameters
    ----------
    groups : sequence of int
        Whole weights of each branch, padded [bytes].
    p : int
        Ranks over which they are cut.
    keep : bool
        Are weights kept whole between forward and backward?
    """

    def __init__(self, groups: Sequence[int], p: int, keep: bool):
        self.groups, self.p, self.keep = groups, p, keep
        self._whole: set[int] = set()
        #: Groups that were gathered and not yet copied out.
        self._coming: set[int] = set()
        #: Bytes of the buffers that torch holds on to: of the last gather in a forward, until the
        #: next one; of the last sum of gradients, until the next one.
        self._gathered = self._scattered = 0

    def forward(self, first: int, count: int) -> tuple[Forward, ...]:
        """The forward of ``count`` branches from the one of number ``first`` on."""
        return tuple(
            Forward(self._ahead(i), () if self.keep else self._let_go(i))
            for i in range(first, first + count)
        )

    def forward_ends(self) -> Events:
        """When the model has returned."""
        held, self._gathered = self._gathered, 0
        return (("gathered", -held),) if held else ()

    def backward(self, first: int, count: int, again: bool, adds: bool) -> tuple[Backward, ...]:
        """The backward of these branches, the last one first; in the order of the forward."""
        last, found = first + count - 1, []
        redone = [Forward((), ())] * count
        for i in range(last, first - 1, -1):
            before = self._ahead_of_backward(i)
            if again and i == last:  # each of the others is a model of its own to torch
                redone[:-1] = [
                    Forward(self._ahead(j), self.forward_ends()) for j in range(first, last)
                ]
            found.append((before, *self._summed(i, adds)))
        return tuple(Backward(*f, r) for f, r in zip(found[::-1], redone, strict=True))

    def backward_ends(self) -> Events:
        """When the input's gradient is there."""
        held, self._scattered = self._scattered, 0
        return (("bucket", -held),) if held else ()

    def _gather(self, i: int) -> Events:
        if i in self._whole or i in self._coming:
            return ()
        self._coming.add(i)
        return (("gathered", self.groups[i]),)

    def _ahead(self, i: int) -> Events:
        """In a forward the buffer of the gather before goes only when this one is copied out."""
        events = self._gather(i)
        if i not in self._coming:
            return events
        events = (*events, *self._copied_out(i), *self.forward_ends())
        self._gathered = self.groups[i]
        return events

    def _copied_out(self, i: int) -> Events:
        self._coming.remove(i)
        self._whole.add(i)
        return (("whole weights", self.groups[i]),)

    def _ahead_of_backward(self, i: int) -> Events:
        events = self._gather(i)
        if i in self._coming:
            events = (*events, *self._copied_out(i), ("gathered", -self.groups[i]))
        return (*events, *(self._gather(i - 1) if i else ()))

    def _let_go(self, i: int) -> Events:
        self._whole.remove(i)
        return (("whole weights", -self.groups[i]),)

    def _summed(self, i: int, adds: bool) -> tuple[Events, Events]:
        """A reduce-scatter as `Comm.scatter_gradients` makes it: an exchange, and a sum."""
        size, part = self.groups[i], self.groups[i] // self.p
        until = (*self._let_go(i), *self.backward_ends(), ("bucket", size))
        self._scattered = size
        after = (("gradients", part), ("received", size), ("received", part),
                 ("received", -size), ("received", -part))  # fmt: skip
        return until, (*after, ("gradients", -part)) if adds else after
