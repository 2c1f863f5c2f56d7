"""Secure aggregation: the server sees the sum of the updates and no single one."""

from dataclasses import dataclass
from typing import ClassVar

from workbench.federated.option import Option, check_number, check_whole


@dataclass(frozen=True)
class SecAggPlus(Option):
    """Masks that cancel in the sum, with shares of their seeds at other clients.

    Parameters
    ----------
    threshold : float
        Share of the clients whose shares rebuild a lost client's mask.
    clipping_range : float
        Changes are clipped to this size, number by number, before they are quantised.
    bits : int
        Levels of the quantisation: 2 to the power of this.
    """

    family: ClassVar[str] = "secure_aggregation"
    available: ClassVar[bool] = False
    threshold: float = 0.6
    clipping_range: float = 8.0
    bits: int = 20

    def check(self) -> None:
        check_number(self, "threshold", most=1.0)
        check_number(self, "clipping_range")
        check_whole(self, "bits", 2, 30)
