"""What a rank needs of its memory in a step with AdamW: exact where there is a closed form."""

from collections.abc import Mapping
from dataclasses import replace
from math import prod

import torch

from workbench.closed_form import prepared
from workbench.footprint.form import closed_form_memory
from workbench.layout import shard_size
from workbench.shares import Share, shares
from workbench.strategies import Strategy, ranks_of
from workbench.strategies.base import count_of
from workbench.transformer import TransformerSpec

#: Tensors as large as the weights that AdamW keeps.
#: Source: torch.optim.AdamW: exp_avg and exp_avg_sq, in the weights' dtype.
_ADAMW = 2


def rank_memory(
    spec: TransformerSpec, strategy: str | type[Strategy], *, mode: str = "train", **given
) -> tuple[int, bool]:
    """Peak bytes of a rank with AdamW, and whether they are exact or an estimate.

    `closed_form_memory` is exact, to the byte of live tensors, for what it covers: training under
    most strategies. For the rest there is `memory_estimate`. ``given`` are its arguments.
    """
    if mode == "train":
        try:
            return closed_form_memory(spec, strategy, optimizer="adamw", **given).peak_bytes, True
        except ValueError:  # not covered; what can't run at all is refused below
            pass
    return memory_estimate(spec, strategy, mode=mode, **given), False


def memory_estimate(
    spec: TransformerSpec,
    strategy: str | type[Strategy],
    *,
    p: int,
    dtype: str = "bfloat16",
    shard: str | None = None,
    mesh: Mapping[str, int] | None = None,
    checkpoint: str = "none",
    switch: str = "inside",
    accumulate: int = 1,
    fsdp: bool | str = False,
    mode: str = "train",
    **options,
) -> int:
    """Estimate of a rank's peak in a training step with AdamW, or in a forward [bytes].

    Weights, gradients, the optimizer's state, a bucket, and what the forward keeps: of each branch
    its input, its normalised input, queries, keys, values, outputs and hidden units; or only
    blocks' inputs and one block. Left out: scratch, fragmentation, buffers of collectives.

    Raises
    ------
    ValueError
        If the strategy can't run this.
    """
    memory = {"checkpoint": checkpoint, "switch": switch, "accumulate": accumulate, "fsdp": fsdp}
    cls, shard = prepared(spec, strategy, p, dtype, shard, mesh, memory, options)
    ranks, data = ranks_of(cls, p, mesh)
    own = count_of(ranks)
    itemsize = getattr(torch, dtype).itemsize
    weights = sum(
        times * prod(shape) // (own if cls.cut_dim(name) is not None else 1)
        for name, shape, times in spec.weight_counts()
    )
    held = weights // p if fsdp else weights
    mine = replace(spec, batch=shard_size(spec.batch, data) // accumulate, valid={})
    blocks = [(_kept(mine, i, s), s.tokens * spec.d_model, count)
              for (i, s), count in shares(cls, mine, ranks, shard).items()]  # fmt: skip
    largest = max(sum(kept) for kept, _, _ in blocks)
    if mode == "inference":
        return round((held + largest) * itemsize)
    states = held * (2 + _ADAMW) + (0 if fsdp else weights)
    if checkpoint == "block":
        activations = largest + sum(stream * count for _, stream, count in blocks)
    else:
        hidden = checkpoint == "none"
        activations = sum((kept[0] + hidden * kept[1]) * count for kept, _, count in blocks)
        activations += (not hidden) * max(kept[1] for kept, _, _ in blocks)
    return round((states + activations) * itemsize)


def _kept(spec: TransformerSpec, number: int, share: Share) -> tuple[float, float]:
    """Elements that a block keeps for its backward; hidden units of its MLP apart."""
    mlp = spec.mlp_per == "stage" or number == len(spec.stages) - 1
    cross = bool(spec.context_length)
    channel = spec.channel
    q = share.groups * share.heads * share.queries * channel
    kv = share.groups * share.kv_heads * share.keys * channel / share.hops
    stream, inside = share.tokens * spec.d_model, share.inside * spec.d_model
    branches = 1 + mlp + cross
    kept = branches * (stream + inside) + 2 * q + 2 * kv + cross * 2 * q
    hidden = mlp * 2 * share.inside * spec.d_model * spec.mlp_ratio / share.width
    return kept, hidden
