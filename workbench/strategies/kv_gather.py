"""Context parallelism by one all-gather: every rank gets all keys and values at once.

    K, V [B, T/sp, S, H, C] --all_gather--> [B, T, S, H, C]        (backward: reduce_scatter)

It sends forward what a ring sends, backward less, takes one step of latency rather than p - 1, and
any mask is easy. But nothing hides the transfer, and each rank holds all keys and values.

Source: Grattafiori et al. (2024), arXiv:2407.21783, section 3.3.2.
"""

from dataclasses import replace

import torch

from workbench.comm import Comm
from workbench.dims import Dims, Stage
from workbench.geometry import Geometry
from workbench.layout import Layout, pad_to
from workbench.strategies.attention import Heads, KVHeads, attend_block, fold, unfold
from workbench.strategies.masks import mask_samples, visible
from workbench.strategies.ring_schedule import places, runs


def gathered_attention(
    q: Heads, k: KVHeads, v: KVHeads, comm: Comm, geometry: Geometry, layout: Layout, stage: Stage
) -> Heads:
    """Softmax attention along ``stage`` of this rank's queries to all keys and values."""
    together = torch.cat([k, v], -1)
    sizes = Dims({**geometry.heads(layout, k.shape[-2]).sizes, "channel": together.shape[-1]})
    cut = replace(layout, sizes=sizes)
    k, v = comm.relayout(together, cut, cut.with_value("shared")).chunk(2, -1)
    first = layout.position(layout.split)
    along = [first, *(layout.position(dim) for dim in stage if dim != layout.split)]
    folded, k, v = (fold(t, along) for t in (q, k, v))
    out = [_attend(folded, k, v, rows, layout, stage, comm) for rows in _rows(layout, stage, comm)]
    return unfold(pad_to(torch.cat(out, 2), 2, folded.shape[2]), along, q.shape)


def _rows(layout: Layout, stage: Stage, comm: Comm) -> list[slice]:
    """Which of the rank's queries are computed together, without padding.

    A rank of nothing but padding computes one of it: its part in the backward is awaited.
    """
    count = len(places(stage, layout, comm.rank, comm.size))
    pieces = runs(stage, layout, comm.size, count) if stage.masked else [slice(0, count)]
    return pieces if count else [slice(0, 1)]


def _attend(q, k, v, rows: slice, layout: Layout, stage: Stage, comm: Comm) -> torch.Tensor:
    keys = places(stage, replace(layout, order="contiguous"), 0, 1)
    real = None if stage.real is None else stage.real[:, keys]
    if not stage.masked:
        return attend_block(q[:, :, rows], k, v, False, mask_samples(real, len(q)))[0]
    queries = places(stage, layout, comm.rank, comm.size)[rows] or [max(keys)]
    end = max(queries) + 1 if stage.causal and keys == sorted(keys) else len(keys)
    mask = visible(queries, keys[:end], stage.causal, stage.window)
    mask = mask_samples(None if real is None else real[:, :end], len(q), mask)
    return attend_block(q[:, :, rows], k[:, :, :end], v[:, :, :end], False, mask)[0]
