"""Clients of unlike rank; each gets the best factors of its rank for the mean of B A."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbench.federated.methods.base import Arrays, ServerState, Update
from workbench.federated.methods.factors import pairs, stacked
from workbench.federated.methods.ranked import Ranked


@dataclass(frozen=True)
class FlexLora(Ranked):
    """``B = U S, A = V^T`` of the SVD of ``sum p_k B_k A_k``, cut to each client's rank.

    By Eckart and Young no other factors of that rank are nearer to the mean. What is cut off is
    lost. The SVD is of the small matrix between the QR factors of the stacked B and A.

    References
    ----------
    Bai et al., arXiv 2402.11505.
    """

    def join(self, updates: Sequence[Update], server: ServerState) -> Arrays:
        joined = {}
        for pair in pairs(server.weights):
            left, right = stacked(updates, pair)
            b, a = best_factors(left, right, len(server.weights[pair.a]))
            new_a, new_b = server.weights[pair.a].copy(), np.zeros_like(server.weights[pair.b])
            new_a[: len(a)], new_b[:, : len(a)] = a, b  # a row without a partner may still learn
            joined |= {pair.a: new_a, pair.b: new_b}
        return {name: joined[name] for name in server.weights}


def best_factors(left: np.ndarray, right: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Factors of at most ``rank`` that are nearest to ``left right``, the largest part first.

    Examples
    --------
    >>> b, a = best_factors(np.diag([3.0, 2.0]), np.eye(2), 1)
    >>> abs(b @ a).round(6).tolist()
    [[3.0, 0.0], [0.0, 0.0]]
    """
    (q_left, r_left), (q_right, r_right) = np.linalg.qr(left), np.linalg.qr(right.T)
    u, s, vt = np.linalg.svd(r_left @ r_right.T, full_matrices=False)
    return q_left @ (u * s)[:, :rank], vt[:rank] @ q_right.T
