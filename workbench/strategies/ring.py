"""Ring attention: queries stay, keys and values travel round the ring.

After hop i rank r has seen the parts of ranks r, r - 1, ..., r - i. Partial softmaxes are merged
through their log-sum-exp, so no rank ever holds the whole sequence. Backward, keys and values
travel again; their gradients travel with them and take one hop more, to come home. Each transfer
starts before the block is computed that it can hide behind.

Under a causal mask contiguous parts are unfair: the first rank sees the fewest keys. A zigzag
(runs r and 2p-1-r of 2p) or stripes (every p-th token) give all ranks as much to do. With
`transfer="all-gather"` keys and values come all at once, as in Llama 3's context parallelism.

Sources: Liu et al. (2023), arXiv:2310.01889; merging: Milakov & Gimelshein (2018),
arXiv:1805.02867; stripes: Brandon et al. (2023), arXiv:2311.09431.
"""

from dataclasses import replace
from functools import partial
from typing import ClassVar

import torch

from workbench.comm import Comm
from workbench.dims import Stage
from workbench.geometry import Geometry
from workbench.layout import Layout
from workbench.strategies.attention import Heads, KVHeads, fold, unfold
from workbench.strategies.base import Strategy
from workbench.strategies.kv_gather import gathered_attention
from workbench.strategies.merging import ring_merge, ring_merge_backward
from workbench.strategies.ring_schedule import masked_blocks


class Ring(Strategy):
    """One dim stays cut for the whole model; attention along it goes round the ring."""

    name = "ring"
    formula = "K and V round the ring in the stage that attends along the cut dim: 2M a layer"
    source = "Liu et al. 2023, arXiv:2310.01889"
    cuts_sequence = True
    options: ClassVar = {
        "order": ("contiguous", "zigzag", "striped"),
        "transfer": ("ring", "all-gather"),
    }
    order, transfer = "contiguous", "ring"

    def __init__(self, comm, geometry, shard=None):
        super().__init__(comm, geometry, shard)
        if self.start.split is not None:
            self.start = replace(self.start, order=self.order)

    def attend(self, q: Heads, k: KVHeads, v: KVHeads, layout: Layout, stage: Stage) -> Heads:
        if layout.split not in stage:
            return super().attend(q, k, v, layout, stage)
        attend = ring_attention if self.transfer == "ring" else gathered_attention
        return attend(q, k, v, self.comm, self.geometry, layout, stage)

    @classmethod
    def forward_elements(cls, geometry, p, shard, branches):
        crossing = sum(stage is not None and shard in stage for stage in branches)
        return crossing * (p - 1) * cls._travelling(geometry, p, shard)

    @classmethod
    def backward_elements(cls, geometry, p, shard, branches):
        crossing = sum(stage is not None and shard in stage for stage in branches)
        hops = 2 * p - 1 if cls.transfer == "ring" else p - 1
        return crossing * hops * cls._travelling(geometry, p, shard)

    @classmethod
    def _travelling(cls, geometry, p, shard) -> int:
        """Elements of one rank's keys and values."""
        stream = geometry.local_elements(shard, p, cls.order)
        return 2 * stream * geometry.kv_heads // geometry.num_heads


def ring_attention(
    q: Heads, k: KVHeads, v: KVHeads, comm: Comm, geometry: Geometry, layout: Layout, stage: Stage
) -> Heads:
    """Softmax attention along ``stage``, whose keys and values go round the ring of ``comm``."""
    # The cut dim comes first, so that a part's padding is at the end of its sequence.
    first = layout.position(layout.split)
    along = [first, *(layout.position(dim) for dim in stage if dim != layout.split)]
    folded = [fold(t, along) for t in (q, k, v)]
    heads = geometry.heads(layout, k.shape[-2])
    out = _RingAttention.apply(*folded, (comm, Stage(stage), heads, comm.site()))
    return unfold(out, along, q.shape)


class _RingAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, ring):
        comm, stage, layout, site = ctx.ring = ring
        wide = torch.promote_types(q.dtype, torch.float32)
        out = torch.zeros_like(q, dtype=wide)
        lse = q.new_full(q.shape[:-1], -torch.inf, dtype=wide)
        kv = own = k.new_empty((2, *k.shape))  # not `stack`, which may leave it in another order
        own[0], own[1] = k, v
        given = (stage, layout, comm.rank)
        for hop in range(comm.size):
            more = hop + 1 < comm.size
            coming = comm.ring_shift(kv, layout, comm.phase, site) if more else None
            source = (comm.rank - hop) % comm.size
            for rows, keys, causal, mask in masked_blocks(*given, source, comm.size, len(q)):
                mine = [t[:, :, rows] for t in (out, lse, q)]
                ring_merge(*mine, *kv[:, :, :, keys], causal, mask)
            kv = coming.wait() if more else kv
        if stage.real is not None:
            lse.masked_fill_(lse == -torch.inf, 0.0)  # padding that sees no key; the kernel's way
        out = out.to(q.dtype)
        ctx.save_for_backward(q, own, out, lse)
        return out

    @staticmethod
    def backward(ctx, grad):
        comm, stage, layout, site = ctx.ring
        q, kv, out, lse = ctx.saved_tensors
        shift = partial(comm.ring_shift, layout=layout, phase="backward", site=site)
        dq, home, given = torch.zeros_like(q, dtype=lse.dtype), None, (stage, layout, comm.rank)
        for hop in range(comm.size):
            more = hop + 1 < comm.size
            coming = shift(kv) if more else None
            source, dkv = (comm.rank - hop) % comm.size, torch.zeros_like(kv)
            for rows, keys, causal, mask in masked_blocks(*given, source, comm.size, len(q)):
                totals = [dq[:, :, rows], *dkv[:, :, :, keys]]
                mine = [grad[:, :, rows], q[:, :, rows], *kv[:, :, :, keys]]
                after = [out[:, :, rows], lse[:, :, rows]]
                ring_merge_backward(*totals, *mine, *after, causal, mask)
            home = shift(dkv if home is None else dkv.add_(home.wait()))
            kv = coming.wait() if more else kv
        dk, dv = home.wait()
        return dq.to(q.dtype), dk, dv, None
