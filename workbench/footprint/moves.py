"""The buffers that a change of layout makes, step for step as `Comm` makes them."""

from collections.abc import Callable

import torch

from workbench.comm import Comm
from workbench.footprint.ledger import Ghost, Ledger, NotCovered, Shape
from workbench.layout import Layout, collective_between, shard_size


class Probe(Comm):
    """A comm that only notes which changes of layout a strategy asks for."""

    def __init__(self, size: int, rank: int = 0, group=None, axis: str = "sp"):
        super().__init__(size, rank, None, axis)
        self.moves: list[tuple[int, Layout, Layout]] = []

    def beside(self, axis, size, rank, group) -> "Probe":
        """As `Comm.beside`; its moves are noted in one list."""
        other = Probe(size, rank, None, axis)
        other.moves = self.moves
        return other

    def relayout(self, x: torch.Tensor, before: Layout, after: Layout) -> torch.Tensor:
        """Note what was asked for; a tensor of the right shape, without values."""
        if self.size == 1 or before == after:
            return x
        self.moves.append((self.size, before, after))
        return torch.empty(after.local_shape(self.size), device="meta")

    def ring_shift(self, *arguments):
        """Refused here: a strategy may use it in `attend` only."""
        raise NotCovered("ring_shift outside of attend")

    def noted(self, hook: Callable, shape: Shape, *arguments):
        """What ``hook`` returns for a tensor of ``shape``, and the changes of layout it makes."""
        self.moves.clear()
        out = hook(torch.empty(shape, device="meta"), *arguments)
        return out, list(self.moves)


def move(ledger: Ledger, x: Ghost, p: int, before: Layout, after: Layout) -> Ghost:
    """Change the layout of ``x`` over ``p`` ranks; one more reference, be it to ``x`` itself."""
    kind = collective_between(before, after)
    if kind is None:
        if after.split is not None:
            raise NotCovered("cutting a whole tensor")
        return ledger.hold(x)
    if before.order != "contiguous" or after.order != "contiguous":
        raise NotCovered("changing the layout of tokens in another order")
    return _KINDS[kind](ledger, x, p, before, after)


def back(ledger: Ledger, grad: Ghost, p: int, before: Layout, after: Layout) -> Ghost:
    """The backward of `move`, which changes the gradient's layout back."""
    return move(ledger, grad, p, after.gradient(), before.gradient())


def _all_to_all(ledger, x, p, before, after) -> Ghost:
    send = _in_chunks(ledger, x, p, after)
    received = ledger.new("received", send.shape)
    out = _joined(ledger, received, before)
    ledger.drop(received, send)
    return out


def _all_gather(ledger, x, p, before, after) -> Ghost:
    send = ledger.packed(x, "sent")
    received = ledger.new("received", (p, *send.shape))
    out = _joined(ledger, received, before)
    ledger.drop(received, send)
    return out


def _reduce_scatter(ledger, x, p, before, after) -> Ghost:
    send = _in_chunks(ledger, x, p, after)
    received = ledger.new("received", send.shape)
    out = ledger.new("relaid", send.shape[1:])
    ledger.drop(received, send)
    return out


def _all_reduce(ledger, x, p, before, after) -> Ghost:
    return ledger.new("relaid", x.shape)


_KINDS = {
    "all_to_all": _all_to_all,
    "all_gather": _all_gather,
    "reduce_scatter": _reduce_scatter,
    "all_reduce": _all_reduce,
}


def _in_chunks(ledger: Ledger, x: Ghost, p: int, after: Layout) -> Ghost:
    dim = after.position(after.split)
    size = x.shape[dim]
    part = shard_size(size, p)
    full = (*x.shape[:dim], part * p, *x.shape[dim + 1 :])
    padded = ledger.hold(x) if part * p == size else ledger.new("padded", full)
    cut = padded.viewed((*full[:dim], p, part, *full[dim + 1 :])).moved(dim, 0)
    send = ledger.packed(cut, "sent")
    ledger.drop(padded)
    return send


def _joined(ledger: Ledger, parts: Ghost, before: Layout) -> Ghost:
    dim = before.position(before.split)
    side = parts.moved(0, dim)
    shape = side.shape
    joined = (*shape[:dim], shape[dim] * shape[dim + 1], *shape[dim + 2 :])
    return ledger.reshaped(side, joined, "relaid").narrowed(dim, before.shared[before.split])
