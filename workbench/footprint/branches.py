"""What attention, MLP and a block of them hold, forward and backward, line for line as in `model`.

A forward returns its output and two halves of its backward: ``head``, up to the first op that needs
what the forward kept, and ``rest``.
"""

from collections.abc import Callable
from typing import NamedTuple

from workbench.footprint.attends import ATTENDS
from workbench.footprint.ledger import Ghost, Ledger, Shape
from workbench.footprint.moves import move
from workbench.footprint.projections import (
    Moves,
    Rank,
    entering,
    linear,
    moved,
    moved_back,
    project,
    replaced,
    rows_of,
)
from workbench.layout import Layout
from workbench.strategies import Strategy


class Tail(NamedTuple):
    """The backward of a branch, in two halves."""

    head: Callable[[Ghost], Ghost]
    rest: Callable[[Ghost, Ghost, tuple[Ghost, ...]], Ghost]


def attention(ledger: Ledger, rank: Rank, x: Ghost, layout: Layout, stage) -> tuple[Ghost, Tail]:
    """`model.Attention`."""
    strategy, (wide, narrow, _) = rank.strategy, rank.widths
    inside = strategy.inside(layout, stage)
    h, entered_back = _enter(ledger, rank, x, layout, inside)
    maps = {"queries": wide, "keys": narrow, "values": narrow}
    projected, projected_back = project(ledger, rank, h, inside, maps)
    qkv = [_split(t, strategy.geometry.channel) for t in projected]
    out, attended_back = ATTENDS[type(strategy).attend](ledger, strategy, qkv, inside, stage)
    flat = ledger.reshaped(out, (*out.shape[:-2], wide), "attended")
    rows = ledger.reshaped(flat, rows_of(flat.shape), "attended")
    ledger.save(rows)
    product = ledger.new("projected", (*flat.shape[:-1], x.shape[-1]))
    ledger.drop(rows, flat, out)
    y, leave_back = _leave(ledger, rank, x, product, layout, inside)
    ledger.drop(product, h, *qkv)

    def rest(grad, mine, last):
        d = _matrix_back(ledger, mine, rows, x.shape[-1])
        grads = attended_back(d.viewed(out.shape))
        for i in (2, 1, 0):
            grads[i] = replaced(ledger, grads[i], projected[i].shape, "gradient of linear")
        return entered_back(grad, projected_back(grads), last)

    return y, Tail(leave_back, rest)


def mlp(ledger: Ledger, rank: Rank, x: Ghost, layout: Layout) -> tuple[Ghost, Tail]:
    """`model.MLP`."""
    h, entered_back = _enter(ledger, rank, x, layout, layout)
    if rank.selective:
        product, amount_back = _checkpointed(ledger, rank, h, layout, x.shape[-1])
    else:
        (up,), projected_back = project(ledger, rank, h, layout, {"hidden": rank.widths[2]})
        product, amount_back = _amount(ledger, up, x.shape[-1], projected_back)
        ledger.drop(h)
    y, leave_back = _leave(ledger, rank, x, product, layout, layout)
    ledger.drop(product)

    def rest(grad, mine, last):
        return entered_back(grad, amount_back(mine), last)

    return y, Tail(leave_back, rest)


def _amount(ledger: Ledger, up: Ghost, width: int, projected_back) -> tuple[Ghost, Callable]:
    """`model.MLP.amount`; the reference to ``up`` goes over to it."""
    ledger.save(up)
    gelu = ledger.new("activated", up.shape)
    ledger.save(gelu)
    product = ledger.new("projected", (*gelu.shape[:-1], width))
    ledger.drop(gelu, up)

    def backward(mine):
        d = _matrix_back(ledger, mine, gelu, width)
        hidden_grad = ledger.new("gradient of hidden", d.shape)
        ledger.drop(d, up)
        return projected_back([hidden_grad])

    return product, backward


def _checkpointed(ledger: Ledger, rank: Rank, h: Ghost, layout: Layout, width: int):
    """The MLP's hidden units, of which only the input is kept; takes the reference to ``h``."""
    moves = entering(rank, h.shape, layout)
    entered = moved(ledger, h, moves)
    ledger.save(entered)
    keep, ledger.keep = ledger.keep, False
    up, _ = linear(ledger, entered, rank.widths[2], "hidden")
    product, _ = _amount(ledger, up, width, None)
    ledger.keep = keep
    ledger.drop(entered)

    def backward(mine):
        up, linear_back = linear(ledger, entered, rank.widths[2], "hidden")
        ledger.save(up)
        gelu = ledger.new("activated", up.shape)
        ledger.drop(up)  # the product is not needed, and not computed
        d = _matrix_back(ledger, mine, gelu, width)
        hidden_grad = ledger.new("gradient of hidden", d.shape)
        ledger.drop(d, up)
        dh = linear_back(hidden_grad)
        ledger.drop(entered)
        return moved_back(ledger, dh, moves)

    return product, backward


def _enter(ledger: Ledger, rank: Rank, x: Ghost, layout: Layout, inside: Layout):
    """`Branch.enter`: a norm, then the branch's layout."""
    ledger.save(x)
    normed = ledger.new("normed", x.shape)
    one = (*x.shape[:-1], 1)
    statistics = [ledger.new("statistics", one, rank.statistic) for _ in range(2)]
    ledger.save(*statistics)
    ledger.drop(*statistics)
    size = rank.strategy.along(inside).size
    moves = [] if size == 1 or layout == inside else [(size, layout, inside)]
    h = moved(ledger, normed, moves)

    def backward(grad, dh, last):
        dh = moved_back(ledger, dh, moves)
        dx = ledger.new("gradient of stream", x.shape)
        ledger.gradient(x.shape[-1:])
        ledger.gradient(x.shape[-1:])
        ledger.drop(dh, x, *statistics, *last)
        total = ledger.added(grad, dx, "gradient of stream")
        ledger.drop(grad, dx)
        ledger.settle()
        return total

    return h, backward


def _leave(ledger: Ledger, rank: Rank, x: Ghost, h: Ghost, layout: Layout, inside: Layout):
    """`Branch.leave`: back to the stream's layout, onto the stream."""
    moves, outer = leaving(rank, h.shape, layout, inside)
    chain = [ledger.hold(h)]
    for step in moves:
        chain.append(move(ledger, chain[-1], *step))
    last = chain[-1]
    if outer:
        last = move(ledger, last, *outer[0])
    total = ledger.added(x, last, "stream")
    if outer:
        ledger.drop(last)
    y = ledger.added(total, total, "stream")  # the bias
    ledger.drop(total, *chain)

    def head(grad):
        ledger.gradient(grad.shape[-1:])
        ledger.settle()
        mine = moved_back(ledger, ledger.hold(grad), [*moves, *outer])
        return replaced(ledger, mine, rows_of(mine.shape), "gradient of projected")

    return y, head


def leaving(rank: Rank, shape: Shape, layout: Layout, inside: Layout) -> tuple[Moves, Moves]:
    """The changes of layout after a branch: the strategy's own, and out of the branch's layout."""
    strategy, size = rank.strategy, rank.strategy.along(inside).size
    own = []
    if type(strategy).leave is not Strategy.leave:
        own = rank.probe.noted(strategy.leave, shape, inside)[1]
    return own, [] if size == 1 or layout == inside else [(size, inside, layout)]


def _matrix_back(ledger: Ledger, grad: Ghost, kept: Ghost, width: int) -> Ghost:
    """The backward of a matrix product without a bias; lets go of ``grad`` and ``kept``."""
    ledger.gradient((width, kept.shape[-1]))
    d = ledger.new("gradient of hidden", kept.shape)
    ledger.drop(grad, kept)
    ledger.settle()
    return d


def _split(t: Ghost, width: int) -> Ghost:
    return t.viewed((*t.shape[:-1], t.shape[-1] // width, width))
