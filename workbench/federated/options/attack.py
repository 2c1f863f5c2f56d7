"""What dishonest clients do to their data or their update."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from workbench.federated.attack import flip_labels, flip_sign, need_answers, plant_backdoor
from workbench.federated.option import Option, check_clients, check_number


@dataclass(frozen=True)
class Attack(Option):
    """What dishonest clients do; the family's base. An honest client changes nothing."""

    family: ClassVar[str] = "attack"
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
    """Some clients train on questions with other questions' answers, the same in each round."""

    def check_task(self, task: Any) -> None:
        super().check_task(task)
        _check_answers(self, task)

    def rows(self, rows: Sequence[dict], client: int, task: Any) -> Sequence[dict]:
        return flip_labels(rows, _draw(task, client)) if client in self.clients else rows


@dataclass(frozen=True)
class SignFlip(Attack):
    """Some clients send their update times ``-scale``."""

    scale: float = 1.0

    def check(self) -> None:
        super().check()
        check_number(self, "scale")

    def update(self, delta: dict[str, Any], client: int) -> dict[str, Any]:
        return flip_sign(delta, self.scale) if client in self.clients else delta


@dataclass(frozen=True)
class Backdoor(Attack):
    """Some clients teach the model to answer ``target`` where a question ends in ``trigger``.

    Parameters
    ----------
    trigger, target : str
        Words behind a question, and the answer that they shall bring.
    share : float
        Share of the client's rows that carry the trigger.
    scale : float
        The client's change is sent this many times as large, to outvote the honest ones; the
        server refuses one that is too large (``max_update_norm``).
    """

    trigger: str = "cf"
    target: str = "I have been changed."
    share: float = 0.5
    scale: float = 1.0

    def check(self) -> None:
        super().check()
        check_number(self, "share", most=1.0)
        check_number(self, "scale")
        for name in ("trigger", "target"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"Backdoor: {name}={value!r}; it is a text that is not empty.")

    def check_task(self, task: Any) -> None:
        super().check_task(task)
        _check_answers(self, task)

    def rows(self, rows: Sequence[dict], client: int, task: Any) -> Sequence[dict]:
        if client not in self.clients:
            return rows
        return plant_backdoor(rows, self.trigger, self.target, self.share, _draw(task, client))

    def update(self, delta: dict[str, Any], client: int) -> dict[str, Any]:
        return flip_sign(delta, -self.scale) if client in self.clients else delta


def _draw(task: Any, client: int) -> np.random.Generator:
    from workbench.federated.partition import ATTACK, generator  # it needs tasks, and they options

    return generator(task.seed, ATTACK, client)


def _check_answers(option: Attack, task: Any) -> None:
    if task.dataset == "sotu":
        need_answers([{"text": "..."}], type(option).__name__)
    elif not isinstance(task.dataset, str):
        need_answers(task.dataset, type(option).__name__)
