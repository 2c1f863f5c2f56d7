"""What attention holds, for each way that a strategy attends."""

from collections.abc import Callable, Sequence
from math import prod

from workbench.footprint.ledger import Ghost, Ledger, NotCovered, Shape
from workbench.footprint.moves import back, move
from workbench.layout import Layout, shard_size
from workbench.strategies import Ring, Strategy, Ulysses

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

    def backward(grad: Ghost) -> list[Ghost]:
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


def by_heads(ledger: Ledger, strategy, qkv, layout: Layout, stage) -> tuple[Ghost, Backward]:
    """`Ulysses.attend`: heads for tokens, attend, and back."""
    if layout.split not in stage:
        return plain(ledger, strategy, qkv, layout, stage)
    if strategy.packed:
        raise NotCovered("packed=True")
    p, geometry = strategy.comm.size, strategy.geometry
    if geometry.kv_heads < p:
        raise NotCovered("copies of heads of keys and values")
    sides = [geometry.heads(layout, t.shape[-2]) for t in qkv]
    pairs = [(side, side.with_split("heads")) for side in sides]
    traded = [move(ledger, t, p, *pair) for t, pair in zip(qkv, pairs, strict=True)]
    out, attended_back = plain(ledger, strategy, traded, layout, stage)
    home = move(ledger, out, p, *reversed(pairs[0]))
    ledger.drop(out, *traded)

    def backward(grad: Ghost) -> list[Ghost]:
        there = back(ledger, grad, p, *reversed(pairs[0]))
        ledger.drop(grad)
        grads = attended_back(there)
        for i in (2, 1, 0):
            mine = back(ledger, grads[i], p, *pairs[i])
            ledger.drop(grads[i])
            grads[i] = mine
        return grads

    return home, backward


def ring(ledger: Ledger, strategy, qkv, layout: Layout, stage) -> tuple[Ghost, Backward]:
    """`Ring.attend`: keys and values go round."""
    if layout.split not in stage:
        return plain(ledger, strategy, qkv, layout, stage)
    if strategy.transfer != "ring":
        raise NotCovered(f"transfer={strategy.transfer!r}")
    p, wide = strategy.comm.size, max(WIDE, ledger.itemsize)
    first = layout.position(layout.split)
    along = [first, *(layout.position(dim) for dim in stage if dim != layout.split)]
    order, (q, k, v) = _folded(ledger, qkv, along)
    sums = _like(q, ledger.new("sums", q.shape, wide))
    lse = ledger.new("log-sum-exp", q.shape[:-1], wide)
    own = ledger.new("keys and values", (2, *k.shape))
    held = ledger.hold(own)
    for _ in range(min(p - 1, 3)):  # hops repeat from the second on
        held = _replaced(ledger, held, ledger.new("travelling", own.shape))
    ledger.drop(held)
    out = sums if wide == ledger.itemsize else _like(q, ledger.new("attended", q.shape))
    ledger.save(q, own, out, lse)
    ledger.drop(own, lse, *(() if out is sums else (sums,)), q, k, v)
    busy = _hops(layout, stage, p)

    def backward(grad: Ghost) -> list[Ghost]:
        mine = ledger.reshaped(grad.permuted(order), q.shape, "gradient of attended")
        ledger.drop(grad)
        dq = _like(q, ledger.new("gradients of q, k, v", q.shape, wide))
        home = _home(ledger, own, busy)
        if wide != ledger.itemsize:
            dq = _replaced(ledger, dq, _like(q, ledger.new("gradients of q, k, v", q.shape)))
        ledger.drop(mine, q, out, lse, *(() if ledger.early else (own,)))
        dkv = Ghost(home.shape[1:], home.strides[1:], home.cell)
        return [_unfolded(g, t.shape, order) for g, t in zip((dq, dkv, dkv), qkv, strict=True)]

    return _unfolded(out, qkv[0].shape, order), backward


def _hops(layout: Layout, stage, p: int) -> list[bool]:
    """Does rank 0 compute at each hop? Of a long run of hops that are alike, the first few."""
    if stage.window is not None or (stage.causal and layout.split != stage[0]):
        raise NotCovered("masks along a ring")
    parts = -(-layout.sizes[layout.split] // shard_size(layout.sizes[layout.split], p))
    busy = 0 if stage.causal else parts - 1
    return [True, *[False] * min(p - 1 - busy, 4), *[True] * min(busy, 4)]


def _home(ledger: Ledger, own: Ghost, hops: Sequence[bool]) -> Ghost:
    """Keys and values go round again; their gradients with them, and home. One reference more."""
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
    ledger.drop(kv, dkv, home[0], *used)
    return ledger.hold(home[1])


def _replaced(ledger: Ledger, old: Ghost, new: Ghost) -> Ghost:
    ledger.drop(old)
    return new


def _like(ghost: Ghost, stored: Ghost) -> Ghost:
    return ghost._replace(cell=stored.cell)


#: A strategy's `attend` -> what it holds.
ATTENDS = {Strategy.attend: plain, Ulysses.attend: by_heads, Ring.attend: ring}
