"""A branch's first linear maps, and what they hold: `Strategy.project` in its variants."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from workbench.footprint.ledger import Ghost, Ledger, NotCovered, Shape
from workbench.footprint.moves import Probe, back, move
from workbench.layout import Layout
from workbench.strategies import MegatronSP, Strategy

Moves = Sequence[tuple[int, Layout, Layout]]


@dataclass(frozen=True)
class Rank:
    """What is the same in all branches of a rank."""

    strategy: Strategy
    probe: Probe
    #: Columns of the queries, keys (and values) and hidden units on this rank.
    widths: tuple[int, int, int]
    #: Bytes of an element of a norm's statistics.
    statistic: int
    selective: bool


def project(ledger: Ledger, rank: Rank, h: Ghost, layout: Layout, maps: Mapping[str, int]):
    """Linear maps by the name and width of their outputs; and the backward of all of them."""
    hook, strategy = type(rank.strategy).project, rank.strategy
    if hook not in (Strategy.project, MegatronSP.project):
        raise NotCovered(f"the projection ({hook.__qualname__})")
    if strategy.regather and layout.split is not None:
        return _regathered(ledger, rank, h, layout, maps)
    moves = entering(rank, h.shape, layout)
    entered = moved(ledger, ledger.hold(h), moves)
    made = [linear(ledger, entered, width, name) for name, width in maps.items()]
    ledger.drop(entered)

    def backward(grads):
        total = None
        for grad, (_, linear_back) in zip(reversed(grads), reversed(made), strict=True):
            dh = linear_back(grad)
            if total is not None:
                both = ledger.new("gradient of normed", dh.shape)
                ledger.drop(total, dh)
                dh = both
            total = dh
        return moved_back(ledger, total, moves)

    return [out for out, _ in made], backward


def _regathered(ledger: Ledger, rank: Rank, h: Ghost, layout: Layout, maps: Mapping[str, int]):
    """`strategies.regather`: the gathered input is not kept."""
    moves = entering(rank, h.shape, layout)
    ledger.save(h)
    keep, ledger.keep = ledger.keep, False
    whole = moved(ledger, ledger.hold(h), moves)
    outs = [linear(ledger, whole, width, name)[0] for name, width in maps.items()]
    ledger.keep = keep
    ledger.drop(whole)

    def backward(grads):
        again = moved(ledger, ledger.hold(h), moves)
        again = replaced(ledger, again, rows_of(again.shape), "copied")
        rows = [ledger.reshaped(g, rows_of(g.shape), "gradient of linear") for g in grads]
        for row in rows:
            ledger.gradient((row.shape[-1], h.shape[-1]))
            ledger.gradient(row.shape[-1:])
        shape = again.shape
        ledger.drop(again)
        total = None
        for grad in grads:
            copied = ledger.reshaped(grad, rows_of(grad.shape), "copied")
            part = ledger.new("gradient of normed", shape)
            ledger.drop(copied)
            both = ledger.new("gradient of normed", shape)  # the first is added to 0
            ledger.drop(part, *(() if total is None else (total,)))
            total = both
        shaped = total.viewed((*grads[0].shape[:-1], shape[-1]))
        dh = moved_back(ledger, ledger.hold(shaped), moves)
        ledger.drop(total, *rows, *grads, h)
        ledger.settle()
        return dh

    return outs, backward


def entering(rank: Rank, shape: Shape, layout: Layout) -> Moves:
    """The changes of layout that `Strategy.enter` makes."""
    if type(rank.strategy).enter is Strategy.enter:
        return []
    return rank.probe.noted(rank.strategy.enter, shape, layout)[1]


def moved(ledger: Ledger, x: Ghost, moves: Moves) -> Ghost:
    """``x`` in another layout; what lies between is let go of at the end."""
    chain = [x]
    for step in moves:
        chain.append(move(ledger, chain[-1], *step))
    ledger.drop(*chain[:-1])
    return chain[-1]


def moved_back(ledger: Ledger, grad: Ghost, moves: Moves) -> Ghost:
    """The backward of `moved`."""
    for step in reversed(moves):
        before = grad
        grad = back(ledger, grad, *step)
        ledger.drop(before)
    return grad


def linear(ledger: Ledger, h: Ghost, width: int, name: str) -> tuple[Ghost, Callable]:
    """A linear map with a bias; of what is not contiguous torch makes a copy, and adds the bias."""
    straight = h.contiguous
    rows = ledger.hold(h) if straight else ledger.reshaped(h, rows_of(h.shape), "copied")
    ledger.save(rows)
    out = ledger.new(name, (*h.shape[:-1], width))
    ledger.drop(rows)
    if not straight:
        product, out = out, ledger.new(name, out.shape)
        ledger.drop(product)

    def backward(grad):
        shapes = (width, h.shape[-1])
        if not straight:
            ledger.gradient(shapes[:1])
            ledger.settle()
        flat = replaced(ledger, grad, rows_of(grad.shape), "gradient of linear")
        if not straight:
            ledger.gradient(shapes)
        dh = ledger.new("gradient of normed", h.shape)
        if straight:
            ledger.gradient(shapes)
            if ledger.early:
                ledger.drop(rows)
            ledger.gradient(shapes[:1])
        ledger.drop(flat)
        if not (straight and ledger.early):
            ledger.drop(rows)
        ledger.settle()
        return dh

    return out, backward


def replaced(ledger: Ledger, t: Ghost, shape: Shape, name: str) -> Ghost:
    """As ``t = t.reshape(shape)``."""
    out = ledger.reshaped(t, shape, name)
    ledger.drop(t)
    return out


def rows_of(shape: Shape) -> Shape:
    """The shape with all dims but the last in one."""
    return prod(shape[:-1]), shape[-1]
