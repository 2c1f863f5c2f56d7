"""Right and planted wrong answers to the exercises of the sequence-parallel half."""

import math

import torch
from answers_claims import CLAIM_ANSWERS
from answers_family import FAMILY_ANSWERS
from answers_fitting import FITTING_ANSWERS
from answers_links import LINK_ANSWERS
from answers_memory import MEMORY_ANSWERS
from answers_own import OWN_ANSWERS
from answers_planner import PLANNER_ANSWERS
from answers_published import PUBLISHED_ANSWERS
from answers_seconds import SECONDS_ANSWERS
from answers_training import TRAINING_ANSWERS
from answers_wires import WIRE_ANSWERS

from workbench.strategies import Strategy


def size(dims, names=None):
    return math.prod(dims[name] for name in (dims if names is None else names))


def names(text):
    return text.split()


def ceil(n, p):
    return -(-n // p)


def local_shape(shape, position, p):
    return tuple(ceil(n, p) if i == position else n for i, n in enumerate(shape))


def sent(kind, n, p):
    part = {"all_gather": p - 1, "ring_shift": 1, "all_reduce": 2 * (p - 1) / p}
    return n * part.get(kind, (p - 1) / p)


def switch(parts, before, after):
    chunks = [part.chunk(len(parts), after) for part in parts]
    return [torch.cat(column, before) for column in zip(*chunks, strict=True)]


def switch_count(dims, layers):
    return (dims * layers - 1) // (dims - 1)


def join(parts, position, n):
    return torch.cat(parts, position).narrow(position, 0, n)


def peers(kind, sent_bytes, rank, p):
    if kind == "all_to_all":
        return [0 if r == rank else sent_bytes // (p - 1) for r in range(p)]
    return [sent_bytes if r == (rank + 1) % p else 0 for r in range(p)]


def runnable(dims, stages, heads, p):
    by_heads = set() if heads % p else {"megatron-tp", "megatron-sp", "ulysses"}
    joint = any(len(stage) == len(dims) for stage in stages)
    return {"ring"} | by_heads | (set() if joint else {"dsp"})


class GatherKV(Strategy):
    """The own strategy that notebook 13 asks for."""

    name, cuts_sequence, value, gathered = "gather-kv", True, "shared", 2

    def attend(self, q, k, v, layout, stage):
        if layout.split not in stage:
            return super().attend(q, k, v, layout, stage)
        heads = self.geometry.heads(layout)
        whole = heads.with_value(self.value)
        k, v = (self.comm.relayout(t, heads, whole) for t in (k, v))
        return super().attend(self.queries(q, heads), k, v, layout, stage)

    def queries(self, q, heads):
        return q


class WrongGradients(GatherKV):
    value = "whole"


class NothingGathered(GatherKV):
    def attend(self, q, k, v, layout, stage):
        return Strategy.attend(self, q, k, v, layout, stage)


class QueriesToo(GatherKV):
    def queries(self, q, heads):
        whole = heads.with_split(None)
        return self.comm.relayout(self.comm.relayout(q, heads, whole), whole, heads)


class MoreBackward(GatherKV):
    def attend(self, q, k, v, layout, stage):
        def pass_on(grad):
            self.comm.ring_shift(grad, layout, "backward", self.comm.site()).wait()

        out = super().attend(q, k, v, layout, stage)
        out.register_hook(pass_on)
        return out


class Raises(GatherKV):
    def queries(self, q, heads):
        raise ValueError("no queries today")


def next_cut(free, upcoming, pick=max):
    uses = {d: next((i for i, s in enumerate(upcoming) if d in s), math.inf) for d in free}
    return pick(free, key=uses.get)


def padded_switch(dims, before, after, p):
    chunk = {d: ceil(n, p) if d in (before, after) else n for d, n in dims.items()}
    return size(chunk) * (p - 1)


#: check -> (the right answer, wrong ones).
ANSWERS = {
    "sequences": (
        lambda dims, stage, batch: (batch * size(dims) // size(dims, stage), size(dims, stage)),
        lambda dims, stage, batch: (size(dims, stage), batch * size(dims) // size(dims, stage)),
        lambda dims, stage, batch: (size(dims) // size(dims, stage), size(dims, stage)),
        lambda dims, stage, batch: (batch, size(dims)),
        lambda dims, stage, batch: (batch, sum(dims[d] for d in stage)),
        lambda dims, stage, batch: 12,
    ),
    "activation_bytes": (
        lambda dims, m, batch, item: size(dims) * m * batch * item,
        lambda dims, m, batch, item: size(dims) * m * batch,
        lambda dims, m, batch, item: size(dims) * batch * item,
        lambda dims, m, batch, item: size(dims) * m * item,
        lambda dims, m, batch, item: sum(dims.values()) * m * batch * item,
        lambda dims, m, batch, item: size(dims) * m * batch * item * 8,
        lambda dims, m, batch, item: size(dims) * m * batch * 4,
    ),
    "attention_flops": (
        lambda dims, stages, m: 4 * size(dims) * sum(size(dims, s) for s in stages) * m,
        lambda dims, stages, m: 2 * size(dims) * sum(size(dims, s) for s in stages) * m,
        lambda dims, stages, m: 4 * len(stages) * size(dims) ** 2 * m,
        lambda dims, stages, m: 4 * sum(size(dims, s) ** 2 for s in stages) * m,
        lambda dims, stages, m: 12 * size(dims) * sum(size(dims, s) for s in stages) * m,
        lambda dims, stages, m: 4 * size(dims) * math.prod(size(dims, s) for s in stages) * m,
    ),
    "local_shape": (
        local_shape,
        lambda shape, position, p: (
            *shape[:position],
            shape[position] // p,
            *shape[position + 1 :],
        ),
        lambda shape, position, p: shape,
        lambda shape, position, p: local_shape(shape, 1, p),
        lambda shape, position, p: local_shape(shape, position, p)[:-1],
    ),
    "sent_bytes": (
        sent,
        lambda kind, n, p: n,
        lambda kind, n, p: n * (p - 1) / p,
        lambda kind, n, p: sent(kind, n, p) / (2 if kind == "all_reduce" else 1),
        lambda kind, n, p: sent(kind, n, p) * p / (p - 1),
        lambda kind, n, p: n * p if kind == "all_gather" else sent(kind, n, p),
        lambda kind, n: n,
    ),
    "megatron_sp_order": (
        ["all_gather", "reduce_scatter", "all_gather", "reduce_scatter"],
        ["all_gather", "all_gather", "reduce_scatter", "reduce_scatter"],
        ["reduce_scatter", "all_gather", "reduce_scatter", "all_gather"],
        ["all_gather", "reduce_scatter"],
        ["all_reduce", "all_reduce"],
        "all_gather",
    ),
    "ulysses_layouts": (
        ["[B,T/sp,S,H,C]", "[B,T,S,H/sp,C]", "[B, T, S, H/sp, C]", "[B, T/sp, S, H, C]"],
        ["[B,T/sp,S,H,C]", "[B,T,S/sp,H,C]", "[B, T, S/sp, H, C]", "[B, T/sp, S, H, C]"],
        ["[B,T,S,H/sp,C]", "[B,T/sp,S,H,C]", "[B, T/sp, S, H, C]", "[B, T, S, H/sp, C]"],
        ["[B,T/sp,S,H,C]", "[B,T,S,H,C]", "[B, T, S, H, C]", "[B, T/sp, S, H, C]"],
        ["[B,T/sp,S,H,C]", "[B,T,S,H/sp,C]"],
    ),
    "ring_bytes": (
        lambda m, p, n: n * (2 * (p - 1) + 2 * (2 * p - 1)) * m // p,
        lambda m, p, n: n * 2 * (p - 1) * m // p,
        lambda m, p, n: n * 4 * (p - 1) * m // p,
        lambda m, p, n: n * 6 * (p - 1) * m // p,
        lambda m, p, n: n * 6 * m,
        lambda m, p, n: (2 * (p - 1) + 2 * (2 * p - 1)) * m // p,
    ),
    "switch": (
        switch,
        lambda parts, before, after: parts,
        lambda parts, before, after: switch(parts[::-1], before, after),
        lambda parts, before, after: switch(parts, before, after)[::-1],
        lambda parts, before, after: [part.transpose(before, after) for part in parts],
        lambda parts, before, after: [torch.cat(parts, before)] * len(parts),
        lambda parts, before, after: torch.cat(parts, before),
    ),
    "dsp_bytes": (
        lambda m, p, n: (2 * n - 1) * (p - 1) * m // p**2,
        lambda m, p, n: 2 * n * m / p,
        lambda m, p, n: 2 * n * (p - 1) * m / p**2,
        lambda m, p, n: (2 * n - 1) * m / p,
        lambda m, p, n: (2 * n - 1) * (p - 1) * m / p,
    ),
    "switch_count": (
        switch_count,
        lambda dims, layers: dims * layers - 1,
        lambda dims, layers: 2 * layers - 1,
        lambda dims, layers: dims * layers,
        lambda dims, layers: layers * dims / (dims - 1),
    ),
    "fewest_switches": (
        names("width width level level level level height height height time"),
        ["width"] * 10,
        ["width", "level"] * 5,
        names("width width level level level level height height height"),
        names("width width level level level level height height height depth"),
        names("width width level height height level time time width level"),
        3,
    ),
    "fewest_bytes": (
        ["width", "width", "height", "height", "width", "height"],
        ["width", "width", "height", "height", "time", "time"],
        ["height", "width", "time"] * 2,
        ["width"] * 6,
        ["width", "width", "height"],
        {"width": 6},
    ),
    "next_cut": (
        next_cut,
        lambda free, upcoming: next_cut(free, upcoming, min),
        lambda free, upcoming: free[0],
        lambda free, upcoming: free[-1],
        lambda free, upcoming: upcoming[-1][0],
        lambda free, upcoming: [next_cut(free, upcoming)],
    ),
    "padded_switch": (
        padded_switch,
        lambda dims, before, after, p: size(dims) * (p - 1) / p**2,
        lambda dims, before, after, p: padded_switch(dims, before, after, p) * p / (p - 1),
        lambda dims, before, after, p: (
            size({d: ceil(n, p) * p for d, n in dims.items()}) * (p - 1) / p**2
        ),
        lambda dims, before, after, p: padded_switch(dims, before, before, p) / p,
        lambda dims, before, after, p: 0,
    ),
    "switchable": (
        lambda dims, stages: all(len(stage) < len(dims) for stage in stages),
        lambda dims, stages: len(dims) > 1,
        lambda dims, stages: len(stages) > 1,
        lambda dims, stages: any(len(stage) < len(dims) for stage in stages),
        lambda dims, stages: 1,
    ),
    "join": (
        join,
        lambda parts, position, n: torch.cat(parts, position),
        lambda parts, position, n: join(parts[::-1], position, n),
        lambda parts, position, n: torch.cat(parts, 0),
        lambda parts, position, n: torch.cat([part[:, :n] for part in parts], position),
        lambda parts, position, n: parts,
    ),
    "peers": (
        peers,
        lambda kind, n, rank, p: [n // p] * p,
        lambda kind, n, rank, p: peers("all_to_all", n, rank, p),
        lambda kind, n, rank, p: peers("all_gather", n, rank, p),
        lambda kind, n, rank, p: peers(kind, n, rank, p)[::-1],
        lambda kind, n, rank, p: [b for b in peers(kind, n, rank, p) if b],
    ),
    "runnable": (
        runnable,
        lambda dims, stages, heads, p: {*runnable(dims, stages, p, p)},
        lambda dims, stages, heads, p: runnable(dims, [], heads, p),
        lambda dims, stages, heads, p: runnable(dims, stages, heads, p) - {"ring"},
        lambda dims, stages, heads, p: sorted(runnable(dims, stages, heads, p)),
    ),
    **MEMORY_ANSWERS,
    **CLAIM_ANSWERS,
    **FITTING_ANSWERS,
    **LINK_ANSWERS,
    **FAMILY_ANSWERS,
    **OWN_ANSWERS,
    **PLANNER_ANSWERS,
    **PUBLISHED_ANSWERS,
    **WIRE_ANSWERS,
    **SECONDS_ANSWERS,
    **TRAINING_ANSWERS,
}
