"""Clients of unlike rank; each gets the best factors of its rank for the mean of B A."""

from dataclasses import dataclass
from typing import ClassVar

from workbench.federated.methods.base import Method
from workbench.federated.option import check_ranks


@dataclass(frozen=True)
class FlexLora(Method):
    """Clients of unlike rank; each gets the best factors of its rank for the mean of B A.

    References
    ----------
    Bai et al., arXiv 2402.11505.
    """

    available: ClassVar[bool] = False
    tunes: ClassVar[tuple[str, ...]] = ("lora",)
    ranks: tuple[int, ...] = (8, 4, 2)

    def check(self) -> None:
        check_ranks(self)
