"""Which keys a query sees, as tensors: by places in the sequence, and by what samples have."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor


def visible(
    queries: Sequence[int], keys: Sequence[int], causal: bool, window: int | None
) -> Bool[np.ndarray, "s_q s_k"]:
    """Which keys each query sees, by their places in the sequence.

    A NumPy array: it is the same however tensors are faked.
    """
    ahead = np.subtract.outer(np.asarray(queries, np.int32), np.asarray(keys, np.int32))
    seen = ahead >= 0 if causal else np.ones_like(ahead, dtype=bool)
    return seen if window is None else seen & (np.abs(ahead) < window)


def bias_of(mask: Tensor, q: Tensor) -> Tensor:
    """What is added to the scores: 0 where a key is seen, else minus infinity."""
    hidden, bias = ~mask, q.new_zeros(mask.shape)
    return bias if q.is_meta else bias.masked_fill_(hidden.to(q.device), -torch.inf)


def causal_part(mask: Tensor, queries: int) -> Tensor:
    """What ``mask`` lets see of the keys up to each query's own place."""
    return mask.expand(*mask.shape[:-2], queries, mask.shape[-1]).tril()


def mask_samples(
    real: np.ndarray | None, rows: int, mask: Bool[np.ndarray, "s_q s_k"] | None = None
) -> Bool[Tensor, "rows 1 #s_q s_k"] | Bool[Tensor, "s_q s_k"] | None:
    """``mask`` as a tensor, and of the keys ``[samples, s_k]`` only the real ones.

    Each sample has equally many of the folded ``rows``, one after another.
    """
    mask = None if mask is None else torch.tensor(mask, device="cpu")
    if real is None or real.all():
        return mask
    keys = torch.tensor(real, device="cpu").repeat_interleave(rows // len(real), 0)[:, None, None]
    return keys if mask is None else keys & mask
