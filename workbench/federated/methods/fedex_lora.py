"""What the mean of A and the mean of B miss of the mean of B A goes into the base."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbench.federated.methods.base import Arrays, ServerState, Update
from workbench.federated.methods.factors import Pair, stacked
from workbench.federated.methods.merged import Merging


@dataclass(frozen=True)
class FedExLora(Merging):
    """FedAvg of A and of B, and ``W += s (sum p_k B_k A_k - Bm Am)``: the mean model is exact.

    With the means ``Bm`` and ``Am`` the missing part is ``sum p_k (B_k - Bm)(A_k - Am)``, so it
    travels as two factors of ``K r`` columns and rows for ``K`` clients. The clients' ``s B_k A_k``
    is averaged exactly, not their functions: a network is not linear in its weights.

    References
    ----------
    Singhal et al., arXiv 2410.09432.
    """

    def residual(
        self, server: ServerState, joined: Arrays, updates: Sequence[Update], pair: Pair
    ) -> tuple[np.ndarray, np.ndarray]:
        return stacked(updates, pair, joined[pair.b], joined[pair.a])
