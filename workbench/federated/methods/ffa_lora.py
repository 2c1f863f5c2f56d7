"""A stays as drawn from the seed; only B is trained, sent and averaged."""

from dataclasses import dataclass
from typing import ClassVar

from workbench.federated.methods.base import Method


@dataclass(frozen=True)
class FfaLora(Method):
    """A stays as drawn from the seed; only B is trained, sent and averaged.

    References
    ----------
    Sun et al., arXiv 2403.12313.
    """

    available: ClassVar[bool] = False
    tunes: ClassVar[tuple[str, ...]] = ("lora",)
