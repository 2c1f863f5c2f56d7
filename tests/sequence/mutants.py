"""Strategies with one planted mistake each."""

from collections import Counter
from dataclasses import replace
from functools import partial

import torch
import torch.distributed as dist
from own_ring import OwnRing

from workbench.dims import Stage
from workbench.layout import pad_to, shard_size, take_shard
from workbench.strategies import DSP, MegatronTP, Ring, Strategy, Ulysses
from workbench.strategies.attention import attention, fold, unfold
from workbench.strategies.ulysses import by_heads


class NoSum(DSP):
    """A forgotten all-reduce of the weights' gradients."""

    def __init__(self, comm, geometry, shard=None):
        super().__init__(comm, geometry, shard)
        comm.sum_gradients = lambda gradients, *more: list(gradients)


class NoF(MegatronTP):
    """Megatron's f is forgotten: forward nothing, backward the all-reduce."""

    def enter(self, h, layout):
        return h


class NoRescale(OwnRing):
    @staticmethod
    def merge(out, lse, new_out, new_lse):
        total = torch.logaddexp(lse, new_lse)
        return out + new_out * (new_lse - total).exp()[..., None], total


class Aliased(OwnRing):
    """In float32, `.to(float32)` of the buffer is the buffer."""

    @staticmethod
    def add(total, buffer):
        wide = torch.promote_types(buffer.dtype, torch.float32)
        return buffer.to(wide) if total is None else total + buffer


class Unlike(Ulysses):
    """Copies heads of keys as a whole, where each should stand beside its copies."""

    def attend(self, q, k, v, layout, stage):
        copies = self.comm.size // k.shape[-2]
        if layout.split not in stage or copies < 2:
            return super().attend(q, k, v, layout, stage)
        k, v = (t.repeat(*(1,) * (t.dim() - 2), copies, 1) for t in (k, v))
        geometry = replace(self.geometry, num_kv_heads=self.comm.size)
        attend = partial(Strategy.attend, self, layout=layout, stage=stage)
        return by_heads(q, k, v, self.comm, geometry, layout, attend)


class PaddedKeys(Strategy):
    """Gathers keys and values, padding and all, and attends to the padding, too."""

    name, cuts_sequence = "padded-keys", True

    def attend(self, q, k, v, layout, stage):
        if layout.split not in stage:
            return super().attend(q, k, v, layout, stage)
        along = [layout.position(dim) for dim in stage]
        k, v = (self.gathered(t, layout) for t in (k, v))
        return unfold(attention(*(fold(t, along) for t in (q, k, v))), along, q.shape)

    def gathered(self, t, layout):
        heads = self.geometry.heads(layout, t.shape[-2])
        whole = self.comm.relayout(t, heads, heads.with_value("shared"))
        dim, p = layout.position(layout.split), self.comm.size
        return pad_to(whole, dim, shard_size(whole.shape[dim], p) * p)

    @classmethod
    def forward_elements(cls, geometry, p, shard, branches):
        return Ring.forward_elements(geometry, p, shard, branches)


class NoSwitchBack(DSP):
    """Switches once, from time to space, and leaves it at that."""

    def arrange(self, x, layout, stage, upcoming):
        return (
            super().arrange(x, layout, stage, upcoming) if layout.split != "space" else (x, layout)
        )


class OnlySays(DSP):
    """Says that it has switched, but has not."""

    def arrange(self, x, layout, stage, upcoming):
        return x, super().arrange(x, layout, stage, upcoming)[1]


class Transposed(DSP):
    """The chunks of a switch arrive in the opposite order of ranks."""

    def arrange(self, x, layout, stage, upcoming):
        moved, after = super().arrange(x, layout, stage, upcoming)
        if after == layout or self.comm.size == 1:
            return moved, after
        whole = self.comm.relayout(moved, after, after.with_split(None))
        return take_shard(whole, after, self.comm.size - 1 - self.comm.rank, self.comm.size), after


class SeedPerRank(DSP):
    """Draws its own weights, from a seed that is another on each rank."""

    def shard_weights(self, weights):
        g = torch.Generator().manual_seed(self.comm.rank)
        return {
            name: w
            if w.is_meta
            else w + 1e-3 * torch.randn(w.shape, generator=g, device="cpu").to(w)
            for name, w in weights.items()
        }


class CountedTwice(DSP):
    """Records a switch twice, and its closed form agrees."""

    def arrange(self, x, layout, stage, upcoming):
        before = len(self.comm.log)
        out = super().arrange(x, layout, stage, upcoming)
        self.comm.log.extend(self.comm.log[before:])
        return out

    @classmethod
    def forward_elements(cls, *given):
        return 2 * super().forward_elements(*given)

    @classmethod
    def backward_elements(cls, *given):
        return super().forward_elements(*given)


class Unrecorded(DSP):
    """Sends something past `Comm`."""

    def enter(self, h, layout):
        if self.comm.group is not None:
            dist.all_reduce(h.detach().clone(), group=self.comm.group)
        return h


class TensorOrder(DSP):
    """A joint stage is flattened in the tensor's order, not in its own."""

    def attend(self, q, k, v, layout, stage):
        order = Stage(sorted(stage), stage.causal, stage.window)
        return super().attend(q, k, v, layout, order)


class AlwaysCausal(DSP):
    """Every window looks back only."""

    def attend(self, q, k, v, layout, stage):
        causal = stage.causal or stage.window is not None
        return super().attend(q, k, v, layout, Stage(stage, causal, stage.window))


class SaysForward(OwnRing):
    """Logs what a checkpoint sends again as a part of the forward."""

    def phase(self):
        return "forward"


class Remembers(DSP):
    """Does something else when a stage is computed a second time."""

    def __init__(self, comm, geometry, shard=None):
        super().__init__(comm, geometry, shard)
        self.seen = Counter()

    def attend(self, q, k, v, layout, stage):
        place = self.comm.site()[:2]
        self.seen[place] += 1
        return super().attend(q, k, v, layout, stage) * self.seen[place]


class TwoSamples(DSP):
    """Wrong from the third sample on."""

    def attend(self, q, k, v, layout, stage):
        out = super().attend(q, k, v, layout, stage)
        return torch.cat([out[:2], 1.1 * out[2:]])


class NoMask(DSP):
    """Forgets what is padding in each sample."""

    def attend(self, q, k, v, layout, stage):
        return super().attend(q, k, v, layout, Stage(tuple(stage)))


class WrongText(DSP):
    """Doubles the values of a text."""

    def keys_and_values(self, text, *maps):
        k, v = super().keys_and_values(text, *maps)
        return k, 2 * v


class NeverSwitches(DSP):
    """Leaves the cut where it is."""

    def arrange(self, x, layout, stage, upcoming):
        return x, layout
