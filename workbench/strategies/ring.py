"""Ring attention: queries stay, keys and values travel round the ring.

After hop i rank r has seen the parts of ranks r, r - 1, ..., r - i. Partial softmaxes are merged
through their log-sum-exp, so no rank ever holds the whole sequence. Backward, keys and values
travel again; their gradients travel with them and take one hop more, to come home.

Sources: Liu et al. (2023), arXiv:2310.01889; merging: Milakov & Gimelshein (2018),
arXiv:1805.02867.
"""

import torch

from workbench.layout import Layout, Stage
from workbench.strategies.attention import Heads, fold, unfold
from workbench.strategies.base import Strategy
from workbench.strategies.ring_merge import ring_merge, ring_merge_backward


class Ring(Strategy):
    """One dim stays cut for the whole model; attention along it goes round the ring."""

    name = "ring"
    formula = "K and V round the ring in the stage that attends along the cut dim: 2M a layer"
    source = "Liu et al. 2023, arXiv:2310.01889"
    cuts_sequence = True

    def attend(self, q: Heads, k: Heads, v: Heads, layout: Layout, stage: Stage) -> Heads:
        if layout.split not in stage:
            return super().attend(q, k, v, layout, stage)
        # The cut dim comes first, so that a part's padding is at the end of its sequence.
        first, p = layout.position(layout.split), self.comm.size
        along = [first, *(layout.position(dim) for dim in stage if dim != layout.split)]
        folded = [fold(t, along) for t in (q, k, v)]
        row = folded[0].shape[2] // q.shape[first]
        valid = [layout.valid(rank, p) * row for rank in range(p)]
        ring = (self.comm, self.geometry.heads(layout), valid, self.comm.site())
        return unfold(_RingAttention.apply(*folded, ring), along, q.shape)

    @classmethod
    def forward_elements(cls, geometry, p, shard, branches):
        crossing = sum(stage is not None and shard in stage for stage in branches)
        return crossing * 2 * (p - 1) * geometry.local_elements(shard, p)

    @classmethod
    def backward_elements(cls, geometry, p, shard, branches):
        crossing = sum(stage is not None and shard in stage for stage in branches)
        return crossing * 2 * (2 * p - 1) * geometry.local_elements(shard, p)


class _RingAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, ring):
        comm, layout, valid, site = ring
        wide = torch.promote_types(q.dtype, torch.float32)
        out = torch.zeros_like(q, dtype=wide)
        lse = q.new_full(q.shape[:-1], -torch.inf, dtype=wide)
        kv = own = torch.stack([k, v])
        for hop in range(comm.size):
            if hop:
                kv = comm.ring_shift(kv, layout, "forward", site)
            ring_merge(out, lse, q, kv, valid[comm.rank - hop])
        out = out.to(q.dtype)
        ctx.ring = ring
        ctx.save_for_backward(q, own, out, lse)
        return out

    @staticmethod
    def backward(ctx, grad):
        comm, layout, valid, site = ctx.ring
        q, kv, out, lse = ctx.saved_tensors
        dq, dkv = torch.zeros_like(q, dtype=lse.dtype), torch.zeros_like(kv)
        for hop in range(comm.size):
            if hop:
                kv = comm.ring_shift(kv, layout, "backward", site)
                dkv = comm.ring_shift(dkv, layout, "backward", site)
            length = valid[comm.rank - hop]
            ring_merge_backward(dq, dkv, grad, q, kv, out, lse, length)
        dkv = comm.ring_shift(dkv, layout, "backward", site)
        return dq.to(q.dtype), dkv[0], dkv[1], None
