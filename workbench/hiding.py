"""What of a transfer is hidden behind computing, and what is left exposed."""

from collections.abc import Callable, Mapping, Sequence
from math import ceil

from workbench.traffic import Sent

#: Gradients that torch's DistributedDataParallel sums at once [bytes].
#: Source: torch.nn.parallel.DistributedDataParallel, bucket_cap_mb=25, in MiB.
BUCKET_BYTES = 25 * 1024**2


def round_the_ring(
    sent: Sent, once: float, ranks: int, times: int, behind: Mapping[str, float]
) -> tuple[float, float]:
    """Exposed and hidden seconds of a ring's transfers, each behind the block computed meanwhile.

    Parameters
    ----------
    sent : Sent
        All shifts of one phase of one stage.
    once : float
        Seconds of one shift.
    ranks, times : int
        In the ring; rings in the step.
    behind : mapping of str to float
        Seconds of all the stage's blocks, by phase.

    Notes
    -----
    Forward p - 1 shifts hide behind as many blocks. Backward K and V hide like this; from the
    second block on the gradients of the one before travel beside them, over the same wire; behind
    the last block they travel alone, and nothing hides their last way home.
    """
    hops = sent.count // times
    forward = behind["forward"] / (times * ranks)
    exposed = 0.0
    if hops in (ranks - 1, 3 * ranks - 2):  # a forward, or one that a checkpoint repeats
        exposed += (ranks - 1) * max(0.0, once - forward)
    if hops > ranks - 1:
        repeated = forward if hops == 3 * ranks - 2 else 0.0
        block = behind["backward"] / (times * ranks) - repeated
        both = (ranks - 2) * max(0.0, 2 * once - block)
        exposed += 2 * max(0.0, once - block) + both + once
    exposed *= times
    return exposed, sent.count * once - exposed


def in_chunks(chunk_s: float, chunks: int, behind_s: float) -> tuple[float, float]:
    """Exposed and hidden seconds of one switch in chunks, each sent while the next is computed.

    Parameters
    ----------
    chunk_s : float
        One chunk on the wire [s].
    chunks : int
        They leave one after another.
    behind_s : float
        What each token needs by itself before it is sent, the MLP: of all chunks together [s].

    Notes
    -----
    Behind the computing of chunk k + 1 chunk k is sent; the last one has nothing left to hide
    behind.

    Examples
    --------
    >>> in_chunks(1.0, 4, 8.0), in_chunks(1.0, 4, 2.0)
    ((1.0, 3.0), (2.5, 1.5))
    """
    exposed = chunk_s + (chunks - 1) * max(0.0, chunk_s - behind_s / chunks)
    return exposed, chunks * chunk_s - exposed


def behind_the_backward(
    input_bytes: float, seconds: Callable[[float], float], backward_s: float
) -> tuple[float, float]:
    """Exposed and hidden seconds of gradients that are summed in buckets during the backward.

    Parameters
    ----------
    input_bytes : float
        All gradients [bytes].
    seconds : callable
        What a bucket of so many bytes takes on the wire [s].
    backward_s : float
        What is computed meanwhile [s].

    Notes
    -----
    Buckets become ready at even intervals and are sent one after another, so that the last one
    ends no earlier than its own time after the backward, nor than all of them after the first.
    Only computing hides them: while activations travel they wait.
    """
    buckets = ceil(input_bytes / BUCKET_BYTES)
    each = seconds(input_bytes / buckets)
    end = max(backward_s + each, backward_s / buckets + buckets * each)
    exposed = end - backward_s
    return exposed, buckets * each - exposed


def prefetched(seconds: Sequence[float], compute_s: float) -> float:
    """Exposed part of gathers and scatters of a stage's weights, while the stage computes [s].

    Each branch's weights are gathered while the one before is computed, and its gradients are
    scattered while the next one is. The first has nothing to hide behind.
    """
    total = sum(seconds)
    return max(max(seconds, default=0.0), total - compute_s) if total else 0.0
