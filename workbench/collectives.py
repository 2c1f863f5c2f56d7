"""What was communicated: the record of one collective and the bytes that each rank sends."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from workbench.layout import Layout

Phase = Literal["forward", "backward", "gradients", "weights"]

#: Bytes that one of p ranks sends per byte of its input buffer, as (numerator, denominator), by
#: bandwidth-optimal algorithms: ring or pairwise exchange; an all-reduce is a reduce-scatter
#: followed by an all-gather.
#: Source: Thakur, Rabenseifner & Gropp (2005), "Optimization of Collective Communication
#: Operations in MPICH", IJHPCA 19(1):49-66.
SENT_PER_INPUT_BYTE = {
    "all_to_all": lambda p: (p - 1, p),
    "all_gather": lambda p: (p - 1, 1),
    "reduce_scatter": lambda p: (p - 1, p),
    "all_reduce": lambda p: (2 * (p - 1), p),
    "ring_shift": lambda p: (1 if p > 1 else 0, 1),
}


def sent_bytes(kind: str, input_bytes: int, p: int) -> int:
    """Bytes that one rank sends in one collective.

    Parameters
    ----------
    kind : str
        A key of `SENT_PER_INPUT_BYTE`.
    input_bytes : int
        Size of the buffer that the rank passes in [bytes], padding included.
    p : int
        Ranks in the group.

    Returns
    -------
    int
        [bytes]. Headers of the transport are left out.

    Examples
    --------
    >>> sent_bytes("all_to_all", 2048, 4), sent_bytes("all_gather", 2048, 4)
    (1536, 6144)
    """
    numerator, denominator = SENT_PER_INPUT_BYTE[kind](p)
    sent, rest = divmod(input_bytes * numerator, denominator)
    assert rest == 0, f"{kind} of {input_bytes} bytes over {p} ranks was not padded"
    return sent


@dataclass(frozen=True, slots=True)
class Collective:
    """One collective as one rank sees it. Equality leaves out times, places and layouts.

    Parameters
    ----------
    kind : str
        A key of `SENT_PER_INPUT_BYTE`.
    axis : str
        The mesh axis it runs along; ``"*"`` is all of them.
    dim : str or None
        The tensor's dim that is gathered, scattered or sent round; ``"time->space"`` when the
        split moves from one dim to another; ``None`` for an all-reduce.
    dtype : str
        Of the buffer, such as ``"float32"``.
    input_bytes, sent_bytes : int
        Size of the rank's input buffer; what the rank sends [bytes].
    phase : {"forward", "backward", "gradients", "weights"}
        ``"gradients"`` sums the gradients of weights, ``"weights"`` gathers weights that are cut;
        the others move activations.
    layer, stage : int or None
        What of the model it belongs to; ``None`` for the gradients.
    before, after : Layout or None
        The moved tensor's layouts.
    where : str
        The line of the strategy that asked for it, ``"dsp.py:30"``.
    waited_s : float or None
        How long the rank stood still for a transfer that computing may hide [s].
    """

    kind: str
    axis: str
    dim: str | None
    dtype: str
    input_bytes: int
    sent_bytes: int
    phase: Phase
    layer: int | None
    stage: int | None
    before: Layout | None = field(default=None, compare=False, repr=False)
    after: Layout | None = field(default=None, compare=False, repr=False)
    where: str = field(default="", compare=False, repr=False)
    waited_s: float | None = field(default=None, compare=False, repr=False)


def is_bucket(phase: str, kind: str) -> bool:
    """Tell gradients that are summed at once from those that FSDP scatters by branch."""
    return phase == "gradients" and kind == "all_reduce"


def bytes_to_peers(record: Collective, rank: int, p: int) -> list[int]:
    """What ``rank`` sends to each of ``p`` ranks in one collective [bytes].

    An all-to-all sends to every other rank alike; all others go round a ring, to the next rank.

    Examples
    --------
    >>> switch = Collective("all_to_all", "sp", "time->space", "float32", 80, 60, "forward", 0, 0)
    >>> bytes_to_peers(switch, rank=1, p=4)
    [20, 0, 20, 20]
    """
    if p == 1:
        return [0]
    if record.kind == "all_to_all":
        return [0 if peer == rank else record.sent_bytes // (p - 1) for peer in range(p)]
    return [record.sent_bytes if peer == (rank + 1) % p else 0 for peer in range(p)]


def crossing_bytes(log: Iterable[Collective], nodes: int, ranks_per_node: int) -> int:
    """What the first node's card carries away to other nodes, if every rank has this log [bytes].

    Ranks fill one node after another. Whatever stays inside a node does not pass its card.

    Examples
    --------
    >>> switch = Collective("all_to_all", "sp", "time->space", "float32", 80, 60, "forward", 0, 0)
    >>> crossing_bytes([switch], nodes=2, ranks_per_node=2)  # 2 ranks, 2 of 3 peers elsewhere
    80
    """
    p = nodes * ranks_per_node
    return sum(
        sum(bytes_to_peers(record, rank, p)[ranks_per_node:])
        for record in log
        for rank in range(ranks_per_node)
    )
