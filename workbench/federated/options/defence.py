"""Rules that join updates so that a few dishonest clients can't decide: the options.

What each computes stands in `workbench.federated.defence`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.federated import defence
from workbench.federated.option import Option, check_number, check_whole


@dataclass(frozen=True)
class Defence(Option):
    """A rule in place of the mean; the family's base. It sees float64 changes, one a client.

    All clients count the same, whatever number of rows they tell.
    """

    family: ClassVar[str] = "defence"

    def check_task(self, task: Any) -> None:
        self.check_updates(task.clients_per_round)

    def check_updates(self, count: int) -> None:
        """Refuse a round with too few updates for what the rule promises."""

    def join(self, deltas: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Join the clients' changes, each name -> float64 array, into one."""
        return defence.unstack(self.rule(defence.stack(deltas)), deltas[0])

    def rule(self, updates: defence.Updates) -> defence.Update:
        """Join rows, one a client, into one."""
        raise NotImplementedError


@dataclass(frozen=True)
class Median(Defence):
    """The median of each coordinate."""

    def rule(self, updates: defence.Updates) -> defence.Update:
        return defence.median(updates)


@dataclass(frozen=True)
class TrimmedMean(Defence):
    """The mean of each coordinate without its ``int(trim n)`` largest and smallest values."""

    trim: float = 0.25

    def check(self) -> None:
        check_number(self, "trim", below=0.5)

    def check_updates(self, count: int) -> None:
        defence.trimmed(count, self.trim)

    def rule(self, updates: defence.Updates) -> defence.Update:
        return defence.trimmed_mean(updates, self.trim)


@dataclass(frozen=True)
class Krum(Defence):
    """The update with the least sum of squared distances to its ``n - f - 2`` nearest."""

    f: int = 1

    def check(self) -> None:
        check_whole(self, "f", 0)

    def check_updates(self, count: int) -> None:
        defence.require(count, self.f, "Krum", 2)

    def rule(self, updates: defence.Updates) -> defence.Update:
        return defence.krum(updates, self.f)


@dataclass(frozen=True)
class MultiKrum(Defence):
    """The mean of the ``keep`` updates that Krum scores best."""

    f: int = 1
    keep: int = 2

    def check(self) -> None:
        check_whole(self, "f", 0)
        check_whole(self, "keep", 1)

    def check_updates(self, count: int) -> None:
        defence.require(count, self.f, "Multi-Krum", 2)
        defence.check_keep(count, self.f, self.keep)

    def rule(self, updates: defence.Updates) -> defence.Update:
        return defence.multi_krum(updates, self.f, self.keep)


@dataclass(frozen=True)
class Bulyan(Defence):
    """Krum picks ``n - 2 f`` updates; each coordinate is the mean of those nearest its median."""

    f: int = 1

    def check(self) -> None:
        check_whole(self, "f", 0)

    def check_updates(self, count: int) -> None:
        defence.require(count, self.f, "Bulyan", 4)

    def rule(self, updates: defence.Updates) -> defence.Update:
        return defence.bulyan(updates, self.f)
