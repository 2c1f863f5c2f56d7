"""A ring in few lines, for even sizes without masks, with three places to plant a mistake."""

import torch

from workbench.strategies import Strategy
from workbench.strategies.attention import (
    attention_backward,
    attention_with_lse,
    fold,
    unfold,
)


class OwnRing(Strategy):
    """Keys and values go round; partial softmaxes are merged."""

    name, cuts_sequence = "own-ring", True

    @classmethod
    def check(cls, geometry, p):
        if p == 1:
            return
        grouped = geometry.kv_heads != geometry.num_heads
        if grouped or any(s.masked for s in geometry.stages):
            raise ValueError(f"{cls.name} knows no masks and no grouped queries")
        uneven = {name: size for name, size in geometry.dims.items() if size % p}
        if uneven:
            raise ValueError(f"{cls.name} needs dims that p={p} divides, got {uneven}")

    def attend(self, q, k, v, layout, stage):
        if layout.split not in stage:
            return super().attend(q, k, v, layout, stage)
        along = [layout.position(dim) for dim in stage]
        ring = (self, self.geometry.heads(layout), self.comm.site())
        out = Hops.apply(*(fold(t, along) for t in (q, k, v)), ring)
        return unfold(out, along, q.shape)

    def phase(self):
        """What a forward pass belongs to now: to the backward where a checkpoint computes again."""
        return self.comm.phase

    @staticmethod
    def merge(out, lse, new_out, new_lse):
        """Merge attention to some more keys into attention to those so far."""
        total = torch.logaddexp(lse, new_lse)
        old, new = ((part - total).exp()[..., None] for part in (lse, new_lse))
        return out * old + new_out * new, total

    @staticmethod
    def add(total, buffer):
        """Add what the buffer holds; it will be filled with the next part."""
        return buffer.clone() if total is None else total + buffer

    @classmethod
    def forward_elements(cls, geometry, p, shard, branches):
        crossing = sum(stage is not None and shard in stage for stage in branches)
        return crossing * 2 * (p - 1) * geometry.local_elements(shard, p)

    @classmethod
    def backward_elements(cls, geometry, p, shard, branches):
        crossing = sum(stage is not None and shard in stage for stage in branches)
        return crossing * 2 * (2 * p - 1) * geometry.local_elements(shard, p)


class Hops(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, ring):
        strategy, layout, site = ctx.ring = ring
        comm, kv = strategy.comm, torch.stack([k, v])
        own, (out, lse) = kv, attention_with_lse(q, *kv)
        for _ in range(comm.size - 1):
            kv = comm.ring_shift(kv, layout, strategy.phase(), site).wait()
            out, lse = strategy.merge(out, lse, *attention_with_lse(q, *kv))
        out = out.to(q.dtype)
        ctx.save_for_backward(q, own, out, lse)
        return out

    @staticmethod
    def backward(ctx, grad):
        strategy, layout, site = ctx.ring
        q, kv, out, lse = ctx.saved_tensors
        comm, dq, dkv = strategy.comm, None, torch.zeros_like(kv)
        buffer = torch.empty_like(q)
        for hop in range(comm.size):
            if hop:
                kv, dkv = (comm.ring_shift(t, layout, "backward", site).wait() for t in (kv, dkv))
            part, dk, dv = attention_backward(grad, q, *kv, out, lse)
            buffer.copy_(part)
            dq = strategy.add(dq, buffer)
            dkv = dkv + torch.stack([dk, dv])
        dk, dv = comm.ring_shift(dkv, layout, "backward", site).wait()
        return dq, dk, dv, None
