"""Clients of unlike rank; factors are padded with zeros and weighted by their norm."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbench.federated.methods.base import Arrays, ServerState, Update
from workbench.federated.methods.factors import pairs
from workbench.federated.methods.ranked import Ranked, padded


@dataclass(frozen=True)
class HetLora(Ranked):
    """``A = sum q_k A_k`` and so for B, with ``q_k ~ ||B_k A_k||`` over all adapters.

    Padding thins out the rows that few clients have, and the norm is to weigh against it. It is
    inexact, as FedAvg is. The paper also lets clients prune their rank; ranks are fixed here.

    References
    ----------
    Cho et al., arXiv 2401.06432.
    """

    def join(self, updates: Sequence[Update], server: ServerState) -> Arrays:
        norms = np.array([norm(update.arrays) for update in updates])
        parts = norms / norms.sum() if norms.sum() > 0 else np.full(len(norms), 1 / len(norms))
        return {
            name: sum(
                part * padded(update.arrays[name].astype(np.float64), old.shape)
                for part, update in zip(parts, updates, strict=True)
            ).astype(old.dtype)
            for name, old in server.weights.items()
        }


def norm(arrays: Arrays) -> float:
    """``sqrt(sum ||B A||^2)`` over the adapters, from r x r matrices."""
    total = 0.0
    for pair in pairs(arrays):
        a, b = arrays[pair.a].astype(np.float64), arrays[pair.b].astype(np.float64)
        total += float(np.sum((b.T @ b) * (a @ a.T)))
    return max(total, 0.0) ** 0.5
