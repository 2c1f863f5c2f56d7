"""What the mean of A and the mean of B miss of the mean of B A goes into the base."""

from dataclasses import dataclass
from typing import ClassVar

from workbench.federated.methods.base import Method


@dataclass(frozen=True)
class FedExLora(Method):
    """What the mean of A and the mean of B miss of the mean of B A goes into the base.

    References
    ----------
    Singhal et al., arXiv 2410.09432.
    """

    available: ClassVar[bool] = False
    tunes: ClassVar[tuple[str, ...]] = ("lora",)
