"""A simulated clock: how fast clients are, who is there, who is too late."""

from dataclasses import dataclass
from typing import ClassVar

from workbench.federated.option import Option, check_number


@dataclass(frozen=True)
class System(Option):
    """Clients of unlike speed on a simulated clock; its seconds are not measured.

    Parameters
    ----------
    speed_sigma : float
        Spread of the log-normal speeds.
    deadline_s : float or None
        A client that needs longer is left out of the round [simulated s].
    dropout : float
        Chance that a client that started does not answer.
    availability : float
        Chance that a client can be asked in a round.
    """

    family: ClassVar[str] = "system"
    available: ClassVar[bool] = False
    speed_sigma: float = 0.5
    deadline_s: float | None = None
    dropout: float = 0.0
    availability: float = 1.0

    def check(self) -> None:
        check_number(self, "speed_sigma", least=0.0)
        if self.deadline_s is not None:
            check_number(self, "deadline_s")
        check_number(self, "dropout", least=0.0, below=1.0)
        check_number(self, "availability", most=1.0)
