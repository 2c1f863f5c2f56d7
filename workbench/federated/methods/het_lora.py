"""Clients of unlike rank; factors are padded with zeros and weighted by their norm."""

from dataclasses import dataclass
from typing import ClassVar

from workbench.federated.methods.base import Method
from workbench.federated.option import check_ranks


@dataclass(frozen=True)
class HetLora(Method):
    """Clients of unlike rank; factors are padded with zeros and weighted by their norm.

    References
    ----------
    Cho et al., arXiv 2401.06432.
    """

    available: ClassVar[bool] = False
    tunes: ClassVar[tuple[str, ...]] = ("lora",)
    ranks: tuple[int, ...] = (8, 4, 2)

    def check(self) -> None:
        check_ranks(self)
