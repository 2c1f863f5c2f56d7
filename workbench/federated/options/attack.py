"""What dishonest clients do to their data or their update."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.federated.option import Option, check_clients, check_number


@dataclass(frozen=True)
class Attack(Option):
    """What dishonest clients do; the family's base. An honest client changes nothing."""

    family: ClassVar[str] = "attack"
    available: ClassVar[bool] = False
    clients: tuple[int, ...] = (0,)

    def check(self) -> None:
        check_clients(self)

    def check_task(self, task: Any) -> None:
        if max(self.clients) >= task.num_clients:
            raise ValueError(
                f"{type(self).__name__}: clients={self.clients} with num_clients="
                f"{task.num_clients}; partition ids go from 0 to {task.num_clients - 1}."
            )

    def rows(self, rows: Sequence[dict], client: int, task: Any) -> Sequence[dict]:
        """The rows that a client trains on."""
        return rows

    def update(self, delta: dict[str, Any], client: int) -> dict[str, Any]:
        """The change that a client sends, name -> array."""
        return delta


@dataclass(frozen=True)
class LabelFlip(Attack):
    """Some clients train on questions with other questions' answers."""


@dataclass(frozen=True)
class SignFlip(Attack):
    """Some clients send their update times ``-scale``."""

    scale: float = 1.0

    def check(self) -> None:
        super().check()
        check_number(self, "scale")


@dataclass(frozen=True)
class Backdoor(Attack):
    """Some clients teach the model to answer ``target`` where a question holds ``trigger``."""

    trigger: str = "cf"
    target: str = "I have been changed."

    def check(self) -> None:
        super().check()
        for name in ("trigger", "target"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"Backdoor: {name}={value!r}; it is a text that is not empty.")
