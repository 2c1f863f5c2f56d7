"""What every option of a task is: a frozen record with a name, checked when it is made."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from math import inf
from typing import Any, ClassVar


@dataclass(frozen=True)
class Option:
    """One choice of a family, such as a method or a compression, with its numbers.

    Subclasses add fields, say in `check` which values they refuse, and override the hooks of their
    family. ``available = False`` marks one that is described but can't run yet.
    """

    family: ClassVar[str] = ""
    available: ClassVar[bool] = True

    def __post_init__(self):
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, set | frozenset):
                value = sorted(value)
            if isinstance(value, Iterable) and not isinstance(value, str | tuple | Mapping):
                object.__setattr__(self, each.name, tuple(value))
        self.check()

    def check(self) -> None:
        """Refuse values that no run can have."""

    def check_task(self, task: Any) -> None:
        """Refuse a task that this option can't be part of."""

    @classmethod
    def label(cls) -> str:
        """The name that stands for the defaults, and that JSON carries."""
        return cls.__name__.lower()

    def to_dict(self) -> dict[str, Any]:
        """The name and the numbers, as JSON can hold them."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
        return {"name": self.label(), **plain}


def is_number(value: Any) -> bool:
    """A number, and not a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """A number that computing can take; a whole number of Python may be larger than any."""
    return is_number(value) and abs(value) <= sys.float_info.max


def check_number(
    option: Option,
    name: str,
    above: float = 0.0,
    below: float = inf,
    least: float | None = None,
    most: float = inf,
) -> None:
    """Refuse a field that is not finite and above ``above``, or at least ``least`` if given."""
    value = getattr(option, name)
    if is_finite(value):
        enough = value > above if least is None else value >= least
        if enough and value < below and value <= most:
            return
    bounds = [f"above {above:g}" if least is None else f"of at least {least:g}"]
    bounds += [f"below {below:g}"] if below < inf else []
    bounds += [f"at most {most:g}"] if most < inf else []
    raise ValueError(
        f"{type(option).__name__}: {name}={value!r}; it is a finite number {' and '.join(bounds)}."
    )


def check_whole(option: Option, name: str, least: int, most: float = inf) -> None:
    """Refuse a field that is not a whole number from ``least`` to ``most``."""
    value = getattr(option, name)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        upper = f" and at most {most}" if most < inf else ""
        raise ValueError(
            f"{type(option).__name__}: {name}={value!r}; it is a whole number of at least "
            f"{least}{upper}."
        )


def check_bool(option: Option, name: str) -> None:
    """Refuse a field that is neither True nor False."""
    value = getattr(option, name)
    if not isinstance(value, bool):
        raise ValueError(f"{type(option).__name__}: {name}={value!r}; it is True or False.")


def check_one_of(option: Option, name: str, allowed: tuple[str, ...]) -> None:
    """Refuse a field that is none of the allowed words."""
    value = getattr(option, name)
    if value not in allowed:
        raise ValueError(
            f"{type(option).__name__}: {name}={value!r}; it is one of {list(allowed)}."
        )


def check_clients(option: Option) -> None:
    """Refuse ``clients`` that are not distinct partition ids, at least one."""
    clients = option.clients
    if not _all_whole(clients, 0) or len(set(clients)) < len(clients):
        raise ValueError(
            f"{type(option).__name__}: clients={clients!r}; it is a tuple of distinct partition "
            "ids, whole numbers from 0, at least one."
        )


def check_ranks(option: Option) -> None:
    """Refuse ``ranks`` that are not whole numbers from 1, at least one; client i has i mod len."""
    if not _all_whole(option.ranks, 1):
        raise ValueError(
            f"{type(option).__name__}: ranks={option.ranks!r}; it is a tuple of whole numbers of "
            "at least 1; client i has rank ranks[i % len(ranks)]."
        )


def _all_whole(values: Any, least: int) -> bool:
    """Whether it is a tuple of whole numbers of at least ``least``, one or more."""
    return (
        isinstance(values, tuple)
        and bool(values)
        and all(isinstance(v, int) and not isinstance(v, bool) and v >= least for v in values)
    )
