"""How rows are dealt to clients: whole sources, or row by row with flwr-datasets."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Optional

from workbench.federated.option import Option, check_number

if TYPE_CHECKING:
    from flwr_datasets.partitioner import Partitioner


@dataclass(frozen=True)
class Partition(Option):
    """How rows are dealt; the family's base."""

    family: ClassVar[str] = "partition"
    #: Whether sources are mixed before they are shared out.
    pooled: ClassVar[bool] = False

    def partitioner(self, clients: int, seed: int) -> Optional["Partitioner"]:
        """What deals the rows of a dataset with a column ``source``; ``None`` leaves them whole."""
        return None


@dataclass(frozen=True)
class Natural(Partition):
    """Each natural source goes whole to one client, the largest first: what ``None`` means."""


@dataclass(frozen=True)
class Iid(Partition):
    """All rows are mixed and dealt evenly, so all clients hold the same mixture."""

    pooled: ClassVar[bool] = True

    def partitioner(self, clients: int, seed: int) -> "Partitioner":
        from flwr_datasets.partitioner import IidPartitioner

        return IidPartitioner(clients)


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

    def partitioner(self, clients: int, seed: int) -> "Partitioner":
        return _by_dirichlet(self.alpha, clients, seed)


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

    def partitioner(self, clients: int, seed: int) -> "Partitioner":
        return _by_dirichlet(self.alpha, clients, seed)  # of one source: all rows, mixed


def _by_dirichlet(alpha: float, clients: int, seed: int) -> "Partitioner":
    from flwr_datasets.partitioner import DirichletPartitioner

    return DirichletPartitioner(
        clients, partition_by="source", alpha=float(alpha), min_partition_size=0, shuffle=False,
        seed=seed,
    )  # fmt: skip
