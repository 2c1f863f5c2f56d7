"""Rules that join updates so that a few dishonest clients can't decide."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.federated.option import Option, check_number, check_whole


@dataclass(frozen=True)
class Defence(Option):
    """A rule in place of the mean; the family's base. It sees float64 changes, one a client."""

    family: ClassVar[str] = "defence"
    available: ClassVar[bool] = False

    def fewest(self) -> int:
        """The fewest updates with which the rule promises anything."""
        return 1

    def check_task(self, task: Any) -> None:
        self.check_updates(task.clients_per_round)

    def check_updates(self, count: int) -> None:
        """Refuse a round with too few updates."""
        if count < self.fewest():
            raise ValueError(
                f"{self!r} with {count} updates a round; it needs at least {self.fewest()}. Raise "
                "clients_per_round, or lower the number of clients that are defended against."
            )

    def join(self, deltas: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Join the clients' changes, each name -> float64 array, into one."""
        raise NotImplementedError


@dataclass(frozen=True)
class Median(Defence):
    """The median of each coordinate."""


@dataclass(frozen=True)
class TrimmedMean(Defence):
    """The mean of each coordinate without its ``int(trim n)`` largest and smallest values."""

    trim: float = 0.25

    def check(self) -> None:
        check_number(self, "trim", below=0.5)

    def check_updates(self, count: int) -> None:
        if int(self.trim * count) == 0:
            raise ValueError(
                f"TrimmedMean: trim={self.trim} of {count} updates trims int({self.trim * count:g})"
                f" = 0, which is the plain mean. Take trim of at least 1/{count}, or more clients."
            )


@dataclass(frozen=True)
class Krum(Defence):
    """The update with the least sum of squared distances to its ``n - f - 2`` nearest."""

    f: int = 1

    def check(self) -> None:
        check_whole(self, "f", 0)

    def fewest(self) -> int:
        return 2 * self.f + 3


@dataclass(frozen=True)
class MultiKrum(Defence):
    """The mean of the ``keep`` updates that Krum scores best."""

    f: int = 1
    keep: int = 2

    def check(self) -> None:
        check_whole(self, "f", 0)
        check_whole(self, "keep", 1)

    def fewest(self) -> int:
        return max(2 * self.f + 3, self.keep)


@dataclass(frozen=True)
class Bulyan(Defence):
    """Krum picks ``n - 2 f`` updates; each coordinate is the mean of those nearest its median."""

    f: int = 1

    def check(self) -> None:
        check_whole(self, "f", 0)

    def fewest(self) -> int:
        return 4 * self.f + 3
