"""The clients' factors are stacked, and their sum is merged into the base."""

from dataclasses import dataclass
from typing import ClassVar

from workbench.federated.methods.base import Method


@dataclass(frozen=True)
class Flora(Method):
    """The clients' factors are stacked, and their sum is merged into the base.

    References
    ----------
    Wang et al., arXiv 2409.05976.
    """

    available: ClassVar[bool] = False
    tunes: ClassVar[tuple[str, ...]] = ("lora",)
