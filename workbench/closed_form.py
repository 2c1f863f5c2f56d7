"""What a step sends, by formula; and the checks that come before every way to run one."""

from collections.abc import Mapping
from dataclasses import replace
from math import prod

import torch

from workbench.collectives import Phase, sent_bytes
from workbench.dims import check_count
from workbench.layout import shard_size
from workbench.strategies import Strategy, choose_shard, ranks_of, select
from workbench.strategies.base import Ranks, count_of
from workbench.transformer import TransformerSpec

#: What `closed_form_bytes` can be asked for.
PHASES = (None, "forward", "backward", "gradients", "weights")
#: dtypes that a step runs in.
DTYPES = ("float32", "bfloat16", "float64")
#: What a checkpointed backward computes again, and where the switches are.
CHECKPOINTS, SWITCHES = ("none", "block", "selective"), ("inside", "outside")
#: Are weights cut over the ranks, and are they kept whole between forward and backward?
FSDP = (False, True, "keep")


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
    fsdp: bool | str = False,
    **options,
) -> int:
    """Bytes that one rank sends in one training step, by formula.

    Parameters
    ----------
    spec, strategy, p, dtype, shard, mesh, checkpoint, switch, accumulate, fsdp, **options
        As for `fake_step`.
    phase : {None, "forward", "backward", "gradients", "weights"}
        ``None`` is forward + backward: what moves activations. ``"gradients"`` is the all-reduce
        of replicated weights' gradients, as one flat bucket; with FSDP, with W the bytes of all
        weights and f = (p-1)/p, it is the reduce-scatter of all gradients, fW. ``"weights"`` is
        FSDP's gathers, 2fW, or fW if weights are kept. FSDP's are per part of the batch, and pad
        the first dim of each weight to a multiple of p.

    Raises
    ------
    ValueError
        If the strategy can't run this, the phase is unknown, or ``autocast=True`` is asked for.
    """
    _check_countable(phase, options.pop("autocast", False))
    memory = {"checkpoint": checkpoint, "switch": switch, "accumulate": accumulate, "fsdp": fsdp}
    cls, shard = prepared(spec, strategy, p, dtype, shard, mesh, memory, options)
    ranks, data = ranks_of(cls, p, mesh)
    if p == 1:
        return 0
    itemsize = getattr(torch, dtype).itemsize
    if phase == "weights" or (fsdp and phase == "gradients"):
        return _fsdp_bytes(spec, p, phase, fsdp, itemsize) * accumulate
    if phase == "gradients":
        return _gradient_bytes(spec, cls, ranks, data, itemsize)
    if ranks == 1:
        return 0
    mine = replace(spec, batch=shard_size(spec.batch, data) // accumulate, valid={})
    given = (mine, ranks, shard, spec.branches)
    sent = {"forward": cls.forward_elements(*given), "backward": cls.backward_elements(*given)}
    for name, elements in zip(sent, cls.text_elements(mine, ranks, spec.branches), strict=True):
        sent[name] += elements
    if checkpoint == "block":
        sent["backward"] += sent["forward"]
        sent["backward"] -= cls.arranged_elements(*given) if switch == "outside" else 0
    return sum(sent[name] for name in sent if phase in (None, name)) * itemsize * accumulate


def _gradient_bytes(spec, cls, ranks, data: int, itemsize: int) -> int:
    """A bucket over all ranks of what each used on other tokens; one over ``data`` of the rest."""
    own = count_of(ranks)
    everywhere, along_data = gradient_elements(spec, cls, ranks)
    buckets = ((everywhere, own * data), (along_data, data))
    return sum(
        sent_bytes("all_reduce", shard_size(count, p) * p * itemsize, p) for count, p in buckets
    )


def gradient_elements(spec: TransformerSpec, cls: type[Strategy], ranks: Ranks) -> tuple[int, int]:
    """Weights whose gradients one rank sums over all ranks, and those over ``data`` only."""
    own = count_of(ranks)
    everywhere = along_data = 0
    for name, shape, times in spec.weight_counts():
        replicated = cls.cut_dim(name) is None
        count = times * prod(shape) // (1 if replicated else own)
        if replicated and cls.cuts_sequence and (own > 1 or cls.axes):
            everywhere += count
        else:
            along_data += count
    return everywhere, along_data


def _check_countable(phase: str | None, autocast: bool) -> None:
    if phase not in PHASES:
        raise ValueError(f"phase must be one of {', '.join(map(repr, PHASES))}; got {phase!r}")
    if autocast:
        raise ValueError(
            "under autocast some tensors travel in bfloat16 and some in dtype, and the closed "
            "forms know one dtype; fake_step(..., autocast=True) counts them"
        )


def _fsdp_bytes(spec, p: int, phase: str, fsdp: bool | str, itemsize: int) -> int:
    """Each branch's weights are gathered ahead of its forward and backward; gradients go once."""
    part = sum(times * shard_size(shape[0], p) * prod(shape[1:])
               for _, shape, times in spec.weight_counts()) * itemsize  # fmt: skip
    if phase == "gradients":
        return sent_bytes("reduce_scatter", part * p, p)
    gathers = {False: 0, True: 2, "keep": 1}[fsdp]
    return gathers * sent_bytes("all_gather", part, p)


def prepared(
    spec, strategy, p, dtype, shard, mesh, memory, options
) -> tuple[type[Strategy], str | None]:
    """The strategy's class and the dim that is cut first; ValueError if it can't run this."""
    if not isinstance(spec, TransformerSpec):
        raise ValueError(f"a TransformerSpec is needed, such as PRESETS['toy-video']; got {spec!r}")
    chosen = {"dtype": dtype, **memory}
    known = {"dtype": DTYPES, "checkpoint": CHECKPOINTS, "switch": SWITCHES, "fsdp": FSDP}
    for name, allowed in known.items():
        if chosen[name] not in allowed:
            names = ", ".join(map(str, allowed))
            raise ValueError(f"{name} must be one of {names}; got {chosen[name]!r}")
    if memory.get("autocast") and dtype == "float64":
        raise ValueError(
            "autocast computes float32's products in bfloat16 and leaves float64 as it is; take "
            "dtype='float32', or autocast=False"
        )
    cls = select(strategy, spec, p, mesh, **options)
    if cls.regather and memory["checkpoint"] == "selective" and p > 1:
        raise ValueError(
            f"checkpoint='selective' computes hidden units again from a gathered input, without "
            f"sending anything, and {cls.name} with regather=True keeps no such input; take "
            "checkpoint='none' or 'block', or regather=False"
        )
    ranks, data = ranks_of(cls, p, mesh)
    if memory["fsdp"]:
        _check_fsdp(cls, p, ranks)
    check_count("accumulate", memory["accumulate"])
    mine = replace(spec, batch=shard_size(spec.batch, data), valid={})
    if mine.batch % memory["accumulate"]:
        raise ValueError(
            f"accumulate={memory['accumulate']} must divide the {mine.batch} samples of a rank, so "
            "that all parts of a step have the same shape"
        )
    return cls, choose_shard(cls, mine, ranks, spec.branches, shard)


def _check_fsdp(cls: type[Strategy], p: int, ranks) -> None:
    alone = p == 1 or ranks == 1
    if not alone and not cls.cuts():
        raise ValueError(
            f"FSDP cuts weights where ranks compute different things, and {cls.name} on {ranks} "
            "ranks computes the same on each. Take p=1, a strategy that cuts tokens such as dsp, "
            f"or a mesh such as {{'data': {p}}}"
        )
    if not alone and cls.cut_weights:
        raise ValueError(
            "FSDP cuts weights that each rank holds whole while tokens or samples are cut; "
            f"{cls.name} on {ranks} ranks cuts weights itself. Strategies that do not: ulysses, "
            "ring, dsp and their meshes; and any strategy whose mesh has a data axis only"
        )
