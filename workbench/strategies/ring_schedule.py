"""Which keys each query of a ring sees at each hop, in as few blocks as their masks allow."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from math import prod
from typing import NamedTuple

import numpy as np

from workbench.dims import Stage
from workbench.layout import Layout, shard_size
from workbench.strategies.masks import mask_samples, visible


class Block(NamedTuple):
    """Some of a rank's queries against some of the keys that it holds at one hop."""

    queries: slice
    keys: slice
    causal: bool = False
    mask: np.ndarray | None = None

    @property
    def pairs(self) -> int:
        """Pairs of a query and a key that are computed."""
        queries, keys = (s.stop - s.start for s in self[:2])
        return sum(min(i + 1, keys) for i in range(queries)) if self.causal else queries * keys


@lru_cache(maxsize=4096)
def blocks(stage: Stage, layout: Layout, rank: int, source: int, p: int) -> tuple[Block, ...]:
    """What ``rank`` computes when it holds the keys and values of ``source``.

    Queries and keys are folded with the cut dim first. Blocks leave out padding and whatever no
    query sees.
    """
    held = [places(stage, layout, r, p) for r in (rank, source)]
    if not stage.masked:
        found = (slice(0, len(held[0])), slice(0, len(held[1])))
        return (Block(*found),) if all(held) else ()
    pieces = [runs(stage, layout, p, len(side)) for side in held]
    found = _fewest(stage, *pieces, *held)
    # Of its own keys a query sees at least itself: those first, so that no sum is ever empty.
    return tuple(sorted(found, key=lambda block: block.queries.start != block.keys.start))


def masked_blocks(
    stage: Stage, layout: Layout, rank: int, source: int, p: int, rows: int
) -> list[Block]:
    """`blocks` of ``rows`` folded sequences, without what is padding in their samples."""
    found = blocks(stage, layout, rank, source, p)
    if stage.real is None:
        return [b._replace(mask=mask_samples(None, rows, b.mask)) for b in found]
    real = stage.real[:, places(stage, layout, source, p)]
    keys = ((block, real[:, block.keys]) for block in found)
    return [b._replace(mask=mask_samples(r, rows, b.mask)) for b, r in keys if r.any()]


def places(stage: Stage, layout: Layout, rank: int, p: int) -> list[int]:
    """Where in the stage's sequence the folded entries of a rank stand."""
    names = [layout.split, *(dim for dim in stage if dim != layout.split)]
    steps = {dim: prod(layout.sizes[d] for d in stage[i + 1 :]) for i, dim in enumerate(stage)}
    held = ([i * steps[dim] for i in layout.held(dim, rank, p)] for dim in names)
    return [sum(parts) for parts in product(*held)]


def runs(stage: Stage, layout: Layout, p: int, count: int) -> list[slice]:
    """The pieces of a rank's entries that follow one another: two in a zigzag, else all."""
    if layout.order != "zigzag":
        return [slice(0, count)] if count else []
    row = prod(layout.shared[dim] for dim in stage if dim != layout.split)
    half = shard_size(layout.shared[layout.split], 2 * p) * row
    return [s for s in (slice(0, min(half, count)), slice(half, count)) if s.start < s.stop]


def _fewest(
    stage: Stage, q: Sequence[slice], k: Sequence[slice], queries: Sequence[int],
    keys: Sequence[int],
) -> list[Block]:  # fmt: skip
    """The fewest blocks of some pieces that need no mask, or no mask that is not needed anyway."""
    if not (q and k):
        return []
    rows, columns = (slice(pieces[0].start, pieces[-1].stop) for pieces in (q, k))
    found = _without_mask(stage, rows, columns, queries[rows], keys[columns])
    if found is not None:
        return found
    if len(q) == len(k) == 1:
        mask = visible(queries[rows], keys[columns], stage.causal, stage.window)
        return [Block(rows, columns, False, mask)] if mask.any() else []
    ways = []
    if len(q) > 1:
        ways.append([b for each in q for b in _fewest(stage, [each], k, queries, keys)])
    if len(k) > 1:
        ways.append([b for each in k for b in _fewest(stage, q, [each], queries, keys)])
    return min(ways, key=len)


def _without_mask(
    stage: Stage, q: slice, k: slice, queries: Sequence[int], keys: Sequence[int]
) -> list[Block] | None:
    """The block, or none where nothing is seen; ``None`` if that takes a mask."""
    ahead, behind = max(queries) - min(keys), max(keys) - min(queries)
    near = stage.window is None or max(ahead, behind) < stage.window
    if near and (behind <= 0 or not stage.causal):
        return [Block(q, k)]
    if stage.causal and ahead < 0:
        return []
    if stage.causal and near and sorted(queries) == queries and sorted(keys) == keys:
        # Or the first query sees no key, and each other one those before its own place only.
        for skip in (0, 1) if queries[0] < keys[0] else (0,):
            if _is_causal(queries[skip:], keys):
                rows = slice(q.start + skip, q.stop)
                seen = slice(k.start, min(k.stop, k.start + rows.stop - rows.start))
                return [Block(rows, seen, True)] if queries[skip:] else []
    return None


def _is_causal(queries: Sequence[int], keys: Sequence[int]) -> bool:
    """Tell whether query i sees just the keys up to i."""
    seen = all(key <= query for query, key in zip(queries, keys, strict=False))
    return seen and all(key > query for query, key in zip(queries, keys[1:], strict=False))
