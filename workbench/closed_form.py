"""What a step sends, by formula; and the checks that come before every way to run one."""

from collections.abc import Mapping
from dataclasses import replace
from math import prod

import torch

from workbench.collectives import Phase, sent_bytes
from workbench.dims import check_count
from workbench.layout import shard_size
from workbench.strategies import Strategy, choose_shard, ranks_of, select
from workbench.transformer import TransformerSpec

#: dtypes that a step runs in.
DTYPES = ("float32", "bfloat16", "float64")
#: What a checkpointed backward computes again, and where the switches are.
CHECKPOINTS, SWITCHES = ("none", "block", "selective"), ("inside", "outside")


def closed_form_bytes(
    spec: TransformerSpec,
    strategy: str | type[Strategy],
    *,
    p: int,
    phase: Phase | None = None,
    dtype: str = "float32",
    shard: str | None = None,
    mesh: Mapping[str, int] | None = None,
    checkpoint: str = "none",
    switch: str = "inside",
    accumulate: int = 1,
    **options,
) -> int:
    """Bytes that one rank sends in one training step, by formula.

    Parameters
    ----------
    spec, strategy, p, dtype, shard, mesh, checkpoint, switch, accumulate, **options
        As for `fake_step`.
    phase : {None, "forward", "backward", "gradients"}
        ``None`` is forward + backward: what moves activations. ``"gradients"`` is the all-reduce
        of replicated weights' gradients, as one flat bucket.

    Raises
    ------
    ValueError
        If the strategy can't run this, or the phase is unknown.
    """
    memory = {"checkpoint": checkpoint, "switch": switch, "accumulate": accumulate}
    cls, shard = prepared(spec, strategy, p, dtype, shard, mesh, memory, options)
    ranks, data = ranks_of(cls, p, mesh)
    if phase not in (None, "forward", "backward", "gradients"):
        raise ValueError(f"phase must be None, 'forward', 'backward' or 'gradients', got {phase!r}")
    if p == 1:
        return 0
    itemsize = getattr(torch, dtype).itemsize
    if phase == "gradients":
        return _gradient_bytes(spec, cls, ranks, data, itemsize)
    if ranks == 1:
        return 0
    mine = replace(spec, batch=shard_size(spec.batch, data) // accumulate)
    given = (mine, ranks, shard, spec.branches)
    sent = {"forward": cls.forward_elements(*given), "backward": cls.backward_elements(*given)}
    if checkpoint == "block":
        sent["backward"] += sent["forward"]
        sent["backward"] -= cls.arranged_elements(*given) if switch == "outside" else 0
    return sum(sent[name] for name in sent if phase in (None, name)) * itemsize * accumulate


def _gradient_bytes(spec, cls, ranks, data: int, itemsize: int) -> int:
    """A bucket over all ranks of what each used on other tokens; one over ``data`` of the rest."""
    own = ranks if isinstance(ranks, int) else prod(ranks.values())
    everywhere = along_data = 0
    for name, shape, times in spec.weight_counts():
        replicated = cls.cut_dim(name) is None
        count = times * prod(shape) // (1 if replicated else own)
        if replicated and cls.cuts_sequence and (own > 1 or cls.axes):
            everywhere += count
        else:
            along_data += count
    buckets = ((everywhere, own * data), (along_data, data))
    return sum(
        sent_bytes("all_reduce", shard_size(count, p) * p * itemsize, p) for count, p in buckets
    )


def prepared(
    spec, strategy, p, dtype, shard, mesh, memory, options
) -> tuple[type[Strategy], str | None]:
    """The strategy's class and the dim that is cut first; ValueError if it can't run this."""
    chosen = {"dtype": dtype, **memory}
    for name, allowed in (("dtype", DTYPES), ("checkpoint", CHECKPOINTS), ("switch", SWITCHES)):
        if chosen[name] not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {chosen[name]!r}")
    cls = select(strategy, spec, p, mesh, **options)
    ranks, data = ranks_of(cls, p, mesh)
    check_count("accumulate", memory["accumulate"])
    mine = replace(spec, batch=shard_size(spec.batch, data))
    if mine.batch % memory["accumulate"]:
        raise ValueError(
            f"accumulate={memory['accumulate']} must divide the {mine.batch} samples of a rank, so "
            "that all parts of a step have the same shape"
        )
    return cls, choose_shard(cls, mine, ranks, spec.branches, shard)
