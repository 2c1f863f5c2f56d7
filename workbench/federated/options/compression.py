"""Fewer bytes on the way up: what of a client's change travels, and what is read from it.

The way down stays in float32: the server sends one model to all.
"""

from dataclasses import dataclass, field
from math import prod
from typing import ClassVar

import numpy as np

from workbench.federated.methods.base import CONTROL
from workbench.federated.option import Option, check_bool, check_number

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Spec:
    """Shape and type of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype = field(default=np.dtype(np.float32))


Specs = dict[str, Spec]


@dataclass(frozen=True)
class Compression(Option):
    """How a change travels; the family's base. ``stateful``: a client keeps what wasn't sent."""

    family: ClassVar[str] = "compression"

    @property
    def stateful(self) -> bool:
        """Whether a client adds what was not sent to its next change (error feedback)."""
        return False

    def wire(self, specs: Specs) -> Specs:
        """Name, shape and type of each array that travels for a change of these shapes."""
        raise NotImplementedError

    def encode(self, delta: Arrays) -> Arrays:
        """The arrays that travel for a change."""
        raise NotImplementedError

    def decode(self, arrays: Arrays, specs: Specs) -> Arrays:
        """The change that the arrays stand for; ``ValueError`` if they can't stand for one."""
        raise NotImplementedError


@dataclass(frozen=True)
class Bf16(Compression):
    """Each number as bfloat16, rounded to nearest even: 2 bytes, 8 significant bits.

    It travels as uint16, the upper half of the float32: Flower's arrays hold no bfloat16.
    """

    def wire(self, specs: Specs) -> Specs:
        return {name: Spec(spec.shape, np.dtype(np.uint16)) for name, spec in specs.items()}

    def encode(self, delta: Arrays) -> Arrays:
        return {name: _upper_half(array) for name, array in delta.items()}

    def decode(self, arrays: Arrays, specs: Specs) -> Arrays:
        wide = {name: array.astype(np.uint32) << 16 for name, array in arrays.items()}
        return {name: array.view(np.float32) for name, array in wide.items()}


def _upper_half(array: np.ndarray) -> np.ndarray:
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    special = (bits & 0x7F800000) == 0x7F800000  # inf and NaN stay what they are
    return np.where(special, bits >> 16, rounded).astype(np.uint16)


@dataclass(frozen=True)
class Int8(Compression):
    """Each number as one of 255 levels of its array: ``round(127 x / max|x|)``, 1 byte.

    One float32 scale an array travels beside them.
    """

    SCALES: ClassVar[str] = "scales"

    def wire(self, specs: Specs) -> Specs:
        levels = {name: Spec(spec.shape, np.dtype(np.int8)) for name, spec in specs.items()}
        return levels | {self.SCALES: Spec((len(specs),))}

    def encode(self, delta: Arrays) -> Arrays:
        scales = np.array([np.abs(a).max(initial=0) / 127 for a in delta.values()], np.float32)
        divisors = np.where(scales > 0, scales, 1)
        levels = {
            name: np.clip(np.rint(array / divisor), -127, 127).astype(np.int8)
            for (name, array), divisor in zip(delta.items(), divisors, strict=True)
        }
        return levels | {self.SCALES: scales}

    def decode(self, arrays: Arrays, specs: Specs) -> Arrays:
        scales = dict(zip(specs, arrays[self.SCALES], strict=True))
        return {name: arrays[name].astype(np.float32) * scales[name] for name in specs}


@dataclass(frozen=True)
class TopK(Compression):
    """The largest numbers of the whole change, with their places: 8 bytes a number that is sent.

    What travels beside the model, such as control variates, is of another size and has its own
    share: neither crowds out the other.

    Parameters
    ----------
    fraction : float
        Share of the numbers that are sent, at least one.
    error_feedback : bool
        Keep what was not sent and add it to the client's next change.
    """

    fraction: float = 0.1
    error_feedback: bool = True

    PLACES: ClassVar[str] = "places"
    VALUES: ClassVar[str] = "values"

    def check(self) -> None:
        check_number(self, "fraction", most=1.0)
        check_bool(self, "error_feedback")

    @property
    def stateful(self) -> bool:
        return self.error_feedback

    def kept(self, specs: Specs) -> int:
        """How many numbers travel."""
        return sum(map(self._of, _sizes(specs)))

    def _of(self, size: int) -> int:
        """How many of ``size`` numbers travel: at least one, if there are any."""
        return min(size, max(1, round(self.fraction * size)))

    def wire(self, specs: Specs) -> Specs:
        k = self.kept(specs)
        return {self.PLACES: Spec((k,), np.dtype(np.uint32)), self.VALUES: Spec((k,))}

    def encode(self, delta: Arrays) -> Arrays:
        flat = np.concatenate([array.ravel() for array in delta.values()])
        beside = np.repeat([_beside(n) for n in delta], [array.size for array in delta.values()])
        sent = []
        for group in (np.flatnonzero(~beside), np.flatnonzero(beside)):
            if group.size:
                k = self._of(group.size)
                sent.append(group[np.argpartition(-np.abs(flat[group]), k - 1)[:k]])
        places = np.sort(np.concatenate(sent)).astype(np.uint32)
        return {self.PLACES: places, self.VALUES: flat[places].astype(np.float32)}

    def decode(self, arrays: Arrays, specs: Specs) -> Arrays:
        places, size = arrays[self.PLACES].astype(np.int64), _size(specs)
        if (np.diff(places) <= 0).any() or places[-1] >= size:
            raise ValueError(f"places are not distinct, in order and below {size}")
        flat, decoded, first = np.zeros(size, np.float32), {}, 0
        flat[places] = arrays[self.VALUES]
        for name, spec in specs.items():
            last = first + prod(spec.shape)
            decoded[name] = flat[first:last].reshape(spec.shape)
            first = last
        return decoded


def _beside(name: str) -> bool:
    """Whether an array travels beside the model's own."""
    return name.startswith(CONTROL)


def _sizes(specs: Specs) -> tuple[int, int]:
    """How many numbers the model has, and what travels beside it."""
    apart = ({n: s for n, s in specs.items() if _beside(n) is it} for it in (False, True))
    return tuple(_size(each) for each in apart)


def _size(specs: Specs) -> int:
    return sum(prod(spec.shape) for spec in specs.values())
