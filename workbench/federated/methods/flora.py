"""The clients' factors are stacked, and their sum is merged into the base."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbench.federated.methods.base import Arrays, ServerState, Update
from workbench.federated.methods.factors import Pair, stacked
from workbench.federated.methods.merged import Merging


@dataclass(frozen=True)
class Flora(Merging):
    """``W += s [B_1 .. B_K] [p_1 A_1; ..; p_K A_K]``; each round begins from fresh adapters.

    The mean of B A is exact and all of it is in the base; the adapters are those of the start
    again, A as drawn from the seed and B = 0. The paper draws A anew each round. All clients have
    the same rank here; the paper's may differ.

    References
    ----------
    Wang et al., arXiv 2409.05976.
    """

    def residual(
        self, server: ServerState, joined: Arrays, updates: Sequence[Update], pair: Pair
    ) -> tuple[np.ndarray, np.ndarray]:
        return stacked(updates, pair)

    def adapters(self, server: ServerState, joined: Arrays) -> Arrays:
        return server.weights
