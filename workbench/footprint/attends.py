"""What attention holds, for each way that a strategy attends."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from math import prod

from workbench.footprint.ledger import Ghost, Ledger, NotCovered, Shape
from workbench.footprint.moves import move
from workbench.layout import Layout, dealt_runs, shard_size
from workbench.strategies import USP, DSPxUlysses, Ring, Strategy, Ulysses
from workbench.strategies.ulysses import sent_heads

#: Gradient of the output -> gradients of queries, keys and values, each with one reference.
Backward = Callable[[Ghost], list[Ghost]]
#: Bytes of an element of log-sum-exps, and of a ring's sums, unless activations are wider.
WIDE = 4


def plain(ledger: Ledger, strategy, qkv, layout: Layout, stage) -> tuple[Ghost, Backward]:
    """`Strategy.attend`: fold, attend, unfold."""
    along = [layout.position(dim) for dim in stage]
    order, folded, o = *_folded(ledger, qkv, along), None
    n, h, s, c = folded[0].shape
    o = _like(folded[0], ledger.new("attended", (n, h, s, c)))
    lse = ledger.new("log-sum-exp", (n, h, s), max(WIDE, ledger.itemsize))
    ledger.save(*folded, o, lse)
    ledger.drop(lse, *folded)

    def backward(grad):
        mine = ledger.reshaped(grad.permuted(order), (n, h, s, c), "gradient of attended")
        ledger.drop(grad)
        grads = [_stored_by_token(ledger, f.shape) for f in folded]
        ledger.drop(mine, *folded, lse, o)
        return [_unfolded(g, t.shape, order) for g, t in zip(grads, qkv, strict=True)]

    return _unfolded(o, qkv[0].shape, order), backward


def _folded(ledger: Ledger, qkv, along: Sequence[int]) -> tuple[list[int], list[Ghost]]:
    rank = len(qkv[0].shape)
    others = [i for i in range(rank - 2) if i not in along]
    order = [*others, rank - 2, *along, rank - 1]
    found = []
    for t in qkv:
        shape = t.shape
        n, s = prod([shape[i] for i in others]), prod([shape[i] for i in along])
        flat = (n, shape[-2], s, shape[-1])
        found.append(ledger.reshaped(t.permuted(order), flat, "folded"))
    return order, found


def _unfolded(t: Ghost, shape: Shape, order: Sequence[int]) -> Ghost:
    wide = t.viewed(tuple([shape[i] for i in order]))
    return wide.permuted([order.index(i) for i in range(len(order))])


def _stored_by_token(ledger: Ledger, shape: Shape, name: str = "gradients of q, k, v") -> Ghost:
    """As the CPU's kernel makes them: ``[N, H, S, C]``, but stored as ``[N, S, H, C]``."""
    n, h, s, c = shape
    stored = ledger.new(name, (n, s, h, c))
    return Ghost(shape, (s * h * c, c, h * c, 1), stored.cell)


def ulysses(ledger: Ledger, strategy, qkv, layout: Layout, stage) -> tuple[Ghost, Backward]:
    """`Ulysses.attend`."""
    if layout.split not in stage:
        return plain(ledger, strategy, qkv, layout, stage)
    attend = partial(plain, ledger, strategy, layout=layout, stage=stage)
    return by_heads(ledger, strategy, strategy.comm.size, qkv, layout, attend, strategy.packed)


def usp(ledger: Ledger, strategy, qkv, layout: Layout, stage) -> tuple[Ghost, Backward]:
    """`USP.attend`: by heads, and between them round the ring."""
    if layout.split not in stage:
        return plain(ledger, strategy, qkv, layout, stage)
    attend = partial(plain, ledger, strategy, layout=layout, stage=stage)
    p = strategy.comm["ring"].size
    if p > 1:
        along = Layout(layout.sizes, layout.split, axis="ring", order=strategy.order)
        attend = partial(round_ring, ledger, p, layout=along, stage=stage)
    return by_heads(ledger, strategy, strategy.comm["ulysses"].size, qkv, layout, attend)


def dsp_ulysses(ledger: Ledger, strategy, qkv, layout: Layout, stage) -> tuple[Ghost, Backward]:
    """`DSPxUlysses.attend`."""
    if layout.outer[0].dim not in stage:
        return plain(ledger, strategy, qkv, layout, stage)
    layout = layout.turned("ulysses", *strategy.places["dsp"])
    attend = partial(plain, ledger, strategy, layout=layout, stage=stage)
    return by_heads(ledger, strategy, strategy.comm["ulysses"].size, qkv, layout, attend)


def by_heads(
    ledger: Ledger, strategy, p: int, qkv, layout: Layout, attend: Callable, packed: bool = False
) -> tuple[Ghost, Backward]:
    """`strategies.ulysses.by_heads`: heads for tokens, attend, and back."""
    copies, sent = sent_heads(strategy.geometry, p) // strategy.geometry.kv_heads, list(qkv)
    for i in (1, 2) if copies > 1 else ():
        *rest, heads, channel = qkv[i].shape
        sent[i] = ledger.new("copied heads", (*rest, heads * copies, channel))
    trade = _together if packed else _one_by_one
    traded, traded_back = trade(ledger, strategy, p, sent, layout)
    if copies > 1:
        ledger.drop(*sent[1:])
    out, attended_back = attend(qkv=traded)
    sides = _sides(strategy, layout, out.shape[-2] * p)[::-1]
    home = _changed(ledger, out, p, sides)
    ledger.drop(out, *(traded[:1] if packed else traded))

    def backward(grad):
        there = _changed(ledger, grad, p, [side.gradient() for side in sides[::-1]])
        ledger.drop(grad)
        grads = traded_back(attended_back(there))
        for i in (2, 1) if copies > 1 else ():
            summed = ledger.new("gradients of q, k, v", qkv[i].shape)
            ledger.drop(grads[i])
            grads[i] = summed
        return grads

    return home, backward


def _sides(strategy, layout: Layout, heads: int, first: bool = False) -> tuple[Layout, Layout]:
    by_dim = strategy.geometry.heads(layout, heads, first)
    return by_dim, by_dim.with_split("heads")


def _changed(ledger: Ledger, t: Ghost, p: int, sides: Sequence[Layout]) -> Ghost:
    return ledger.hold(t) if p == 1 else move(ledger, t, p, *sides)


def _one_by_one(ledger: Ledger, strategy, p: int, qkv, layout: Layout):
    pairs = [_sides(strategy, layout, t.shape[-2]) for t in qkv]
    traded = [_changed(ledger, t, p, pair) for t, pair in zip(qkv, pairs, strict=True)]

    def backward(grads):
        for i in (2, 1, 0):
            mine = _changed(ledger, grads[i], p, pairs[i][::-1])
            ledger.drop(grads[i])
            grads[i] = mine
        return grads

    return traded, backward


def _together(ledger: Ledger, strategy, p: int, qkv, layout: Layout):
    """`ulysses.trade_packed`: each rank's heads of q, k and v side by side."""
    counts = [t.shape[-2] // p for t in qkv]
    *rest, _, channel = qkv[0].shape
    side = ledger.new("packed", (p * sum(counts), *rest, channel))
    pair = _sides(strategy, layout, side.shape[0], first=True)
    traded = _changed(ledger, side, p, pair)
    ledger.drop(side)
    together = traded.moved(0, len(rest))
    parts = [together.narrowed(len(rest), count) for count in counts]

    def backward(grads):
        both = ledger.new("packed", together.shape)
        ledger.drop(*grads)
        home = _changed(ledger, both.moved(len(rest), 0), p, pair[::-1])
        ledger.drop(both)
        wide = home.viewed((p, sum(counts), *rest, channel))
        narrow = [wide.narrowed(1, count) for count in counts]
        found = [None] * 3
        for i in (2, 1, 0):
            by_token = narrow[i].moved(0, len(rest) + 1).moved(0, len(rest) + 1)
            found[i] = ledger.reshaped(by_token, qkv[i].shape, "gradients of q, k, v")
        ledger.drop(home)
        return found

    return parts, backward


def ring(ledger: Ledger, strategy, qkv, layout: Layout, stage) -> tuple[Ghost, Backward]:
    """`Ring.attend`."""
    if layout.split not in stage:
        return plain(ledger, strategy, qkv, layout, stage)
    if strategy.transfer != "ring":
        raise NotCovered(f"transfer={strategy.transfer!r}")
    return round_ring(ledger, strategy.comm.size, qkv, layout, stage)


def round_ring(ledger: Ledger, p: int, qkv, layout: Layout, stage) -> tuple[Ghost, Backward]:
    """`strategies.ring.ring_attention`: keys and values go round."""
    wide = max(WIDE, ledger.itemsize)
    first = layout.position(layout.split)
    along = [first, *(layout.position(dim) for dim in stage if dim != layout.split)]
    order, (q, k, v) = _folded(ledger, qkv, along)
    sums = _like(q, ledger.new("sums", q.shape, wide))
    lse = ledger.new("log-sum-exp", q.shape[:-1], wide)
    own = ledger.new("keys and values", (2, *k.shape))
    held = ledger.hold(own)
    for _ in range(min(p - 1, 3)):  # hops repeat from the second on
        held = _replaced(ledger, held, ledger.new("travelling", own.shape))
    out = sums if wide == ledger.itemsize else _like(q, ledger.new("attended", q.shape))
    ledger.save(q, own, out, lse)
    ledger.drop(held, own, lse, *(() if out is sums else (sums,)), q, k, v)
    busy = _hops(layout, stage, p)

    def backward(grad):
        mine = ledger.reshaped(grad.permuted(order), q.shape, "gradient of attended")
        ledger.drop(grad)
        dq = _like(q, ledger.new("gradients of q, k, v", q.shape, wide))
        home, held = _home(ledger, own, busy)
        if wide != ledger.itemsize:
            dq = _replaced(ledger, dq, _like(q, ledger.new("gradients of q, k, v", q.shape)))
        ledger.drop(*held, mine, q, out, lse, *(() if ledger.early else (own,)))
        dkv = Ghost(home.shape[1:], home.strides[1:], home.cell)
        return [_unfolded(g, t.shape, order) for g, t in zip((dq, dkv, dkv), qkv, strict=True)]

    return _unfolded(out, qkv[0].shape, order), backward


def _hops(layout: Layout, stage, p: int) -> list[bool]:
    """Does rank 0 compute at each hop? Of a long run of hops that are alike, the first few."""
    dim, striped = layout.split, layout.order == "striped" and len(stage) > 1
    if stage.window is not None or (stage.causal and (dim != stage[0] or striped)):
        raise NotCovered("masks along a ring")
    if layout.order == "contiguous":
        busy = 0 if stage.causal else -(-layout.sizes[dim] // shard_size(layout.sizes[dim], p)) - 1
        runs = [(False, p - 1 - busy), (True, busy)]
    else:
        size = layout.sizes[dim]
        ends = [_ends(size, source, p, layout.order) for source in (0, *range(p - 1, 0, -1))]
        sees = [keys and (not stage.causal or keys[0] <= ends[0][1]) for keys in ends[1:]]
        runs = [(computes, len(list(run))) for computes, run in groupby(map(bool, sees))]
    return [True, *(computes for computes, run in runs for _ in range(min(run, 4)))]


def _ends(size: int, rank: int, p: int, order: str) -> tuple[int, int] | None:
    """The first and the last entry that a rank holds, if any."""
    runs = [run for run in dealt_runs(range(size), size, rank, p, order) if run]
    return (runs[0][0], runs[-1][-1]) if runs else None


def _home(ledger: Ledger, own: Ghost, hops: Sequence[bool]) -> tuple[Ghost, list[Ghost]]:
    """Keys and values go round again; their gradients with them, and home.

    What has come home, with one reference, and what else the function refers to until its end.
    """
    # Of what is computed again only this function has a reference; else autograd has one, too.
    kv, home, dkv = own if ledger.early else ledger.hold(own), None, None
    used: list[Ghost] = []  # what the last block that was computed looked into
    for hop, computes in enumerate(hops):
        more = hop + 1 < len(hops)
        coming = ledger.new("travelling", own.shape) if more else None
        fresh = ledger.new("travelling gradients", own.shape)
        if dkv is not None:
            ledger.drop(dkv)
        dkv = fresh
        if computes:
            ledger.drop(*used)
            used = [ledger.hold(dkv), ledger.hold(kv)]
        if home is not None:  # what was on its way home has come, and been added
            ledger.drop(home[0])
        arriving = ledger.new("travelling gradients", own.shape)
        if home is not None:
            ledger.drop(home[1])
        home = (ledger.hold(dkv), arriving)
        if more:
            kv = _replaced(ledger, kv, coming)
    ledger.drop(home[0])
    return ledger.hold(home[1]), [kv, dkv, *used]


def _replaced(ledger: Ledger, old: Ghost, new: Ghost) -> Ghost:
    ledger.drop(old)
    return new


def _like(ghost: Ghost, stored: Ghost) -> Ghost:
    return ghost._replace(cell=stored.cell)


#: A strategy's `attend` -> what it holds.
ATTENDS = {
    Strategy.attend: plain,
    Ulysses.attend: ulysses,
    Ring.attend: ring,
    USP.attend: usp,
    DSPxUlysses.attend: dsp_ulysses,
}
