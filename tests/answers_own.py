"""Right and planted wrong answers to the exercises on writing a strategy."""

import torch

from workbench.strategies import Strategy, Ulysses


def gathered(geometry, p, shard, branches, tensors=None):
    crossing = sum(stage is not None and shard in stage for stage in branches)
    tensors = tensors or geometry.num_heads + 2 * geometry.kv_heads
    return crossing * (p - 1) * geometry.local_elements(shard, p) * tensors // geometry.num_heads


def both(geometry, p, shard, branches):
    back = gathered(geometry, p, shard, branches, geometry.num_heads)
    return [gathered(geometry, p, shard, branches), back]


def merge(out, lse, new_out, new_lse):
    total = torch.logaddexp(lse, new_lse)
    old, new = ((part - total).exp()[..., None] for part in (lse, new_lse))
    return [out * old + new_out * new, total]


def merge_by_exp(out, lse, new_out, new_lse):
    old, new = lse.exp()[..., None], new_lse.exp()[..., None]
    return [(out * old + new_out * new) / (old + new), (lse.exp() + new_lse.exp()).log()]


OWN_ANSWERS = {
    "gather_elements": (
        both,
        lambda *given: [gathered(*given)] * 2,
        lambda *given: [gathered(*given), 0],
        lambda g, p, *more: [size * p // (p - 1) for size in both(g, p, *more)],
        lambda g, p, s, b: [3 * (p - 1) * g.local_elements(s, p) * len(g.stages) // 2, 0],
        lambda g, *more: [gathered(g, *more, 3 * g.num_heads), both(g, *more)[1]],
        gathered,
    ),
    "merge": (
        merge,
        merge_by_exp,
        lambda out, lse, new_out, new_lse: [
            out + (merge(out * 0, lse, new_out, new_lse)[0]),
            torch.logaddexp(lse, new_lse),
        ],
        lambda out, lse, new_out, new_lse: [(out + new_out) / 2, torch.logaddexp(lse, new_lse)],
        lambda out, lse, new_out, new_lse: [merge(out, lse, new_out, new_lse)[0], lse + new_lse],
        lambda out, lse, new_out, new_lse: merge(out, lse, new_out, new_lse)[0],
    ),
}


class ByHeads(Strategy):
    """A right answer: heads are cut while attention runs along the cut dim."""

    name, cuts_sequence = "by-heads", True

    @classmethod
    def check(cls, geometry, p):
        if p > 1 and (geometry.num_heads % p or geometry.kv_heads != geometry.num_heads):
            raise ValueError(
                f"heads must be a multiple of p={p}, and as many of keys as of queries"
            )

    def attend(self, q, k, v, layout, stage):
        if layout.split not in stage:
            return super().attend(q, k, v, layout, stage)
        heads = self.geometry.heads(layout)
        cut = heads.with_split("heads")
        q, k, v = (self.comm.relayout(t, heads, cut) for t in (q, k, v))
        return self.comm.relayout(super().attend(q, k, v, layout, stage), cut, heads)

    forward_elements = Ulysses.forward_elements


class BySwitch(Strategy):
    """A right answer: the cut moves to the first dim that is free."""

    name, cuts_sequence = "by-switch", True

    @classmethod
    def check(cls, geometry, p):
        if p > 1 and any(len(stage) == len(geometry.dims) for stage in geometry.stages):
            raise ValueError("a stage along all dims leaves none to cut")

    def arrange(self, x, layout, stage, upcoming):
        if layout.split not in stage:
            return x, layout
        after = layout.with_split(self.free(self.geometry, stage))
        return self.comm.relayout(x, layout, after), after

    @staticmethod
    def free(geometry, stage):
        return next(dim for dim in geometry.dims if dim not in stage)

    @classmethod
    def forward_elements(cls, geometry, p, shard, branches):
        total = 0
        for stage in branches:
            if stage is not None and shard in stage:
                after = cls.free(geometry, stage)
                both = -(-geometry.dims[after] // p) * (p - 1)
                total += geometry.local_elements(shard, p) // geometry.dims[after] * both
                shard = after
        return total
