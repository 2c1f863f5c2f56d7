"""How rows are dealt to clients: whole sources, or rows by drawn shares.

The shares are drawn here and not by flwr-datasets, which would bring pyarrow, 171 MB, along.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from workbench.federated.option import Option, check_number


@dataclass(frozen=True)
class Partition(Option):
    """How rows are dealt; the family's base."""

    family: ClassVar[str] = "partition"
    #: Whether sources are mixed before they are shared out.
    pooled: ClassVar[bool] = False

    def shares(
        self, sources: int, clients: int, draw: np.random.Generator
    ) -> Float[np.ndarray, "sources clients"] | None:
        """The share of each source that each client gets; rows add up to 1.

        ``None`` leaves sources whole.
        """
        return None


@dataclass(frozen=True)
class Natural(Partition):
    """Each natural source goes whole to one client, the largest first: what ``None`` means."""


@dataclass(frozen=True)
class Iid(Partition):
    """All rows are mixed and dealt evenly, so all clients hold the same mixture."""

    pooled: ClassVar[bool] = True

    def shares(
        self, sources: int, clients: int, draw: np.random.Generator
    ) -> Float[np.ndarray, "sources clients"]:
        return np.full((sources, clients), 1 / clients)


@dataclass(frozen=True)
class Dirichlet(Partition):
    """Label skew: each source is shared out by its own draw from a Dirichlet distribution.

    Parameters
    ----------
    alpha : float
        Concentration; small is skewed: at 0.1 most of a source is with one client, at 100 all
        clients hold nearly the same mixture.

    References
    ----------
    Hsu et al., arXiv 1909.06335.
    """

    alpha: float = 0.5

    def check(self) -> None:
        check_number(self, "alpha")

    def shares(
        self, sources: int, clients: int, draw: np.random.Generator
    ) -> Float[np.ndarray, "sources clients"]:
        return draw.dirichlet([self.alpha] * clients, sources)


@dataclass(frozen=True)
class QuantitySkew(Partition):
    """All rows are mixed; the clients' sizes are one draw from a Dirichlet distribution.

    Parameters
    ----------
    alpha : float
        Concentration; small makes a few clients hold nearly all.
    """

    pooled: ClassVar[bool] = True
    alpha: float = 0.5

    def check(self) -> None:
        check_number(self, "alpha")

    def shares(
        self, sources: int, clients: int, draw: np.random.Generator
    ) -> Float[np.ndarray, "sources clients"]:
        return np.tile(draw.dirichlet([self.alpha] * clients), (sources, 1))
