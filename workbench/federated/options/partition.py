"""How rows are dealt to clients: the options."""

from dataclasses import dataclass
from typing import ClassVar

from workbench.federated.option import Option, check_number


@dataclass(frozen=True)
class Partition(Option):
    """How rows are dealt; the family's base."""

    family: ClassVar[str] = "partition"


@dataclass(frozen=True)
class Natural(Partition):
    """Each natural source goes whole to one client, the largest first: what ``None`` means."""


@dataclass(frozen=True)
class Iid(Partition):
    """Rows are shuffled and dealt evenly, so all clients hold the same mixture."""

    available: ClassVar[bool] = False


@dataclass(frozen=True)
class Dirichlet(Partition):
    """Each source's rows are shared out by shares drawn from a Dirichlet distribution.

    Parameters
    ----------
    alpha : float
        Concentration; small is skewed: at 0.1 most of a source is with one client, at 100 all
        clients hold nearly the same mixture.
    """

    available: ClassVar[bool] = False
    alpha: float = 0.5

    def check(self) -> None:
        check_number(self, "alpha")


@dataclass(frozen=True)
class QuantitySkew(Partition):
    """Shuffled rows; the clients' sizes are drawn from a Dirichlet distribution.

    Parameters
    ----------
    alpha : float
        Concentration; small makes a few clients hold nearly all.
    """

    available: ClassVar[bool] = False
    alpha: float = 0.5

    def check(self) -> None:
        check_number(self, "alpha")
