"""LoRA's factors as methods see them: which A belongs to which B, and the stack of the clients'."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from workbench.federated.methods.base import Update

A, B, PEFT = ".lora_A.weight", ".lora_B.weight", "base_model.model."


class Pair(NamedTuple):
    """The names of one adapter's factors, and that of the base's weight that B A is added to."""

    a: str
    b: str
    weight: str


def pairs(names: Iterable[str]) -> list[Pair]:
    """The adapters among arrays of these names.

    Examples
    --------
    >>> pairs(["base_model.model.q.lora_A.weight", "base_model.model.q.lora_B.weight"])[0].weight
    'q.weight'
    """
    stems = [name.removesuffix(A) for name in names if name.endswith(A)]
    return [Pair(s + A, s + B, s.removeprefix(PEFT) + ".weight") for s in stems]


def shares(updates: Sequence[Update]) -> list[float]:
    """``p_k = n_k / sum n``: each client's part by its training rows."""
    rows = sum(update.examples for update in updates)
    return [update.examples / rows for update in updates]


def stacked(
    updates: Sequence[Update], pair: Pair, b0: np.ndarray | float = 0, a0: np.ndarray | float = 0
) -> tuple[Float[np.ndarray, "out stack"], Float[np.ndarray, "stack inner"]]:
    """``[B_1 - b0, ..]`` and ``[p_1 (A_1 - a0); ..]``: their product is a weighted mean.

    The share stands in one factor only, or it would count twice. Ranks may differ, in float64.
    """
    left = [u.arrays[pair.b].astype(np.float64) - b0 for u in updates]
    right = [
        p * (u.arrays[pair.a].astype(np.float64) - a0)
        for p, u in zip(shares(updates), updates, strict=True)
    ]
    return np.concatenate(left, axis=1), np.concatenate(right)


def product(left: np.ndarray, right: np.ndarray, scale: float) -> np.ndarray:
    """``scale * left right``, summed in float64, as float32; the same bits on both sides."""
    return (scale * (left.astype(np.float64) @ right.astype(np.float64))).astype(np.float32)
