"""How much of attention each rank of a ring computes, by the order in which tokens are dealt."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

from matplotlib.figure import Figure

from workbench.dims import Dims, Stage, check_count
from workbench.figures.marks import Picture, Text, printed, rectangle, svg
from workbench.figures.style import INK, PALE, captioned, rank_colours
from workbench.layout import Layout, Order
from workbench.strategies.attention import visible
from workbench.strategies.ring_schedule import blocks

#: How a ring may deal its tokens.
ORDERS: tuple[Order, ...] = get_args(Order)
#: Pixels: one order, the strip of tokens, the bars.
_WIDE, _STRIP, _BARS, _TOP = 300, 16, 120, 90


@dataclass(frozen=True)
class Balance:
    """Who computes how much of one attention in a ring.

    Attributes
    ----------
    order : {"contiguous", "zigzag", "striped"}
        How the tokens are dealt.
    held : tuple of tuple of int
        The tokens of each rank.
    pairs : tuple of tuple of int
        Pairs of a query and a key that a rank computes at each hop; at hop i it holds the keys
        of the rank i before it.
    seen : int
        Pairs in which the query may see the key: the least that anybody has to compute.
    """

    order: Order
    held: tuple[tuple[int, ...], ...]
    pairs: tuple[tuple[int, ...], ...]
    seen: int

    @cached_property
    def totals(self) -> tuple[int, ...]:
        """Pairs of each rank."""
        return tuple(map(sum, self.pairs))

    @property
    def excess(self) -> float:
        """The busiest rank's pairs over an even share of those that are seen; 1 is the best."""
        return max(self.totals) * len(self.totals) / self.seen


def balance(
    size: int, p: int, order: str, *, causal: bool = True, window: int | None = None
) -> Balance:
    """Count the blocks that the ring's own schedule has for each rank.

    Parameters
    ----------
    size, p : int
        Tokens and ranks.
    order : {"contiguous", "zigzag", "striped"}
        How the tokens are dealt.
    causal, window
        As for `workbench.dims.Stage`.

    Examples
    --------
    >>> balance(8, 2, "contiguous").totals, balance(8, 2, "zigzag").totals
    ((10, 26), (18, 18))
    """
    check_count("p (the number of ranks)", p)
    if order not in ORDERS:
        raise ValueError(f"order={order!r}: the orders are {', '.join(ORDERS)}")
    stage = Stage("tokens", causal=causal, window=window)
    layout = Layout(Dims({"batch": 1, "tokens": size, "model": 1}), "tokens", order=order)
    held = tuple(tuple(layout.held("tokens", rank, p)) for rank in range(p))
    pairs = tuple(tuple(_hops(stage, layout, rank, p)) for rank in range(p))
    seen = int(visible(range(size), range(size), causal, window).sum())
    return Balance(order, held, pairs, seen)


def _hops(stage, layout, rank, p):
    for hop in range(p):
        yield sum(block.pairs for block in blocks(stage, layout, rank, (rank - hop) % p, p))


def balance_chart(found: Sequence[Balance]) -> Figure:
    """Who holds which token, and the pairs that each rank computes, hop upon hop.

    Parameters
    ----------
    found : sequence of Balance
        As `balance` counts them, of equally many tokens and ranks; one panel each.
    """
    return captioned(printed(_chart(found)), balance_caption(found))


def balance_svg(found: Sequence[Balance]) -> str:
    """`balance_chart` as an SVG element."""
    return svg(_chart(found), balance_caption(found))


def _chart(found: Sequence[Balance]) -> Picture:
    page, most = Picture(0, 0), max(max(each.totals) for each in found)
    for each in found:
        page.add(_panel(each, most), page.width + 10, 6)
    return page


def _panel(found: Balance, most: int) -> Picture:
    """One order: the strip of tokens above, a bar for each rank below."""
    page, p = Picture(_WIDE + 10, _TOP + _BARS + 24), len(found.totals)
    colours = rank_colours(p)
    title = f"{found.order}: busiest {found.excess:.2f} x an even share"
    page.marks.append(Text(0, 8, title, 12, "start", bold=True))
    page.marks.append(Text(0, 24, "tokens, coloured by the rank that has them", 9.5, "start"))
    step = _WIDE / sum(map(len, found.held))
    for rank, tokens in enumerate(found.held):
        for i in tokens:
            box = (i * step, 34, (i + 1) * step, 34 + _STRIP)
            tip = f"token {i} is on rank {rank}"
            page.marks.append(rectangle(*box, colours[rank], edge="#FFFFFF", width=0.4, tip=tip))
    page.marks.append(Text(0, _TOP - 27, "pairs that each rank computes", 9.5, "start"))
    for rank in range(p):
        page.marks += _bar(found, rank, colours, _BARS / most)
    even = _TOP + _BARS * (1 - found.seen / p / most)
    page.marks.append(rectangle(0, even, _WIDE, even, None, edge=INK, dashed=True))
    return page


def _bar(found: Balance, rank: int, colours: Sequence[str], scale: float):
    """A rank's hops upon each other, each in the colour of the rank whose keys it holds."""
    p, bottom = len(colours), _TOP + _BARS
    left, right = (_WIDE * (rank + at) / p for at in (0.12, 0.88))
    yield rectangle(left, bottom - scale * max(1, found.totals[rank]), right, bottom, PALE)
    for hop, pairs in enumerate(found.pairs[rank]):
        source, top = (rank - hop) % p, bottom - scale * pairs
        tip = f"rank {rank}, hop {hop}: {pairs:,} pairs with the keys of rank {source}"
        if pairs:
            yield rectangle(left, top, right, bottom, colours[source], tip=tip)
        bottom = top
    if p <= 8:
        yield Text((left + right) / 2, bottom - 7, f"{found.totals[rank]:,}", 9)
    yield Text((left + right) / 2, _TOP + _BARS + 11, str(rank), 10)


def balance_caption(found: Sequence[Balance]) -> str:
    """Say what a chart of balance shows, with its numbers."""
    sizes = f"{sum(map(len, found[0].held))} tokens on {len(found[0].totals)} ranks"
    parts = [f"{each.order} {each.excess:.2f}" for each in found]
    text = f"{sizes}. The busiest rank computes so many times an even share (dashed): "
    text += ", ".join(parts) + ". A bar has a piece for each hop, in the colour of the rank whose "
    text += "keys it holds then."
    computed = {sum(each.totals) for each in found}
    if computed != {found[0].seen}:
        counts = ", ".join(f"{each.order} {sum(each.totals):,}" for each in found)
        text += f" Pairs that are seen: {found[0].seen:,}; computed, masked ones too: {counts}."
    return text
