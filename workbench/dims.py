"""Named dims and their sizes, and the stages that attend along them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import index

import numpy as np

#: Names that every activation has besides the spec's own dims.
RESERVED = ("batch", "model", "heads", "channel", "context")


class Dims(Mapping):
    """Sizes by name, in order, unchangeable and hashable: ``Dims({"time": 16, "space": 256})``.

    Examples
    --------
    >>> Dims({"time": 2, "space": 3}) == {"time": 2, "space": 3}
    True
    >>> Dims({"time": 2, "space": 3}) == Dims({"space": 3, "time": 2})  # order is layout
    False
    """

    __slots__ = ("_sizes",)

    def __init__(self, sizes: Mapping[str, int]):
        self._sizes = dict(sizes)

    def __getitem__(self, name: str) -> int:
        return self._sizes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sizes)

    def __len__(self) -> int:
        return len(self._sizes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return self is other or tuple(self.items()) == tuple(other.items())

    def __hash__(self) -> int:
        return hash(tuple(self.items()))

    def __repr__(self) -> str:
        return repr(self._sizes)


class Lengths(Dims):
    """How long each sample is along some dims; what lies beyond is padding.

    Examples
    --------
    >>> lengths = Lengths({"time": (16, 11)})
    >>> lengths["time"], lengths.of(slice(1, 2))
    ((16, 11), {'time': (11,)})
    """

    __slots__ = ()

    def __init__(self, lengths: Mapping[str, Sequence[int]]):
        try:
            self._sizes = {name: tuple(map(index, each)) for name, each in lengths.items()}
        except (TypeError, AttributeError):
            raise ValueError(
                "lengths of samples are a dict of dim -> one whole number for each sample, such "
                f"as {{'time': (16, 11)}}; got {lengths!r}"
            ) from None

    def __getitem__(self, name: str) -> tuple[int, ...]:
        return self._sizes[name]

    def of(self, samples: slice) -> "Lengths":
        """Those of some of the samples."""
        return Lengths({name: each[samples] for name, each in self.items()})


class Stage(tuple):
    """The dims that one attention runs along, jointly, and which tokens see which.

    Parameters
    ----------
    dims : str or iterable of str
        In the order in which they are flattened to one sequence, the first the slowest.
    causal : bool
        A token sees itself and those before it in that sequence.
    window : int or None
        A token sees only those less than this many places away.

    Attributes
    ----------
    real : bool array ``[samples, places]`` or None
        Which keys of the sequence are tokens, not padding, in each sample of a batch; ``None``
        where all are. The model sets it (`with_real`) for one attention; no part of equality.

    Notes
    -----
    A stage that is neither causal nor windowed equals the plain tuple of its dims.

    Examples
    --------
    >>> Stage("time", causal=True)
    Stage('time', causal=True)
    >>> Stage(("height", "width")) == ("height", "width"), Stage("time", causal=True) == ("time",)
    (True, False)
    """

    causal: bool
    window: int | None
    real: np.ndarray | None

    def __new__(cls, dims: str | Iterable[str], causal: bool = False, window: int | None = None):
        if isinstance(dims, Stage):
            causal, window = causal or dims.causal, dims.window if window is None else window
        if not isinstance(dims, Iterable):
            raise ValueError(f"a stage is a dim's name or several, such as 'time'; got {dims!r}")
        stage = super().__new__(cls, (dims,) if isinstance(dims, str) else dims)
        if not isinstance(causal, bool):
            raise ValueError(f"causal must be True or False, got {causal!r}")
        if window is not None:
            check_count("window", window)
        stage.causal, stage.window, stage.real = causal, window, getattr(dims, "real", None)
        return stage

    def with_real(self, real: np.ndarray) -> "Stage":
        """The same stage for samples with padding, whose keys no query sees."""
        stage = Stage(self)
        stage.real = real
        return stage

    @property
    def masked(self) -> bool:
        """Tell whether a token doesn't see all others."""
        return self.causal or self.window is not None

    def __getnewargs__(self):
        return tuple(self), self.causal, self.window

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, tuple):
            return NotImplemented
        mask = (getattr(other, "causal", False), getattr(other, "window", None))
        return tuple.__eq__(self, other) and (self.causal, self.window) == mask

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        own = tuple(self)
        return hash((own, self.causal, self.window)) if self.masked else hash(own)

    def __repr__(self) -> str:
        if not self.masked:
            return repr(tuple(self))
        dims = repr(self[0] if len(self) == 1 else tuple(self))
        causal = ", causal=True" if self.causal else ""
        window = "" if self.window is None else f", window={self.window}"
        return f"Stage({dims}{causal}{window})"


def check_count(name: str, value: object) -> None:
    """Raise ValueError unless ``value`` is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")


def check_seed(seed: object) -> None:
    """Raise ValueError unless ``seed`` can be one: weights, input and text take one number each."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63 - 2:
        raise ValueError(f"seed must be an integer of at least 0 and below 2**63 - 2, got {seed!r}")


def check_dims(dims: Dims, stages: tuple[Stage, ...]) -> None:
    """Raise ValueError unless the dims have good names and sizes, and the stages name them."""
    if not dims or not stages:
        raise ValueError(f"need at least one dim and one stage, got dims={dims}, stages={stages}")
    for name, size in dims.items():
        if not isinstance(name, str) or not name.isidentifier() or name in RESERVED:
            raise ValueError(
                f"a dim needs a plain name other than {', '.join(RESERVED)}; got {name!r}"
            )
        check_count(f"the size of dim {name!r}", size)
    for stage in stages:
        unknown = [name for name in stage if name not in dims]
        if unknown or not stage or len(set(stage)) < len(stage):
            raise ValueError(
                f"stage {stage} must name one or more of the dims {list(dims)}, each once"
            )


def check_lengths(lengths: Lengths, samples: int, sizes: Mapping[str, int]) -> None:
    """Raise ValueError unless each of the samples has a length that fits, along known dims."""
    for name, each in lengths.items():
        size = sizes.get(name, 0)
        if not size:
            known = ", ".join(dim for dim in sizes if sizes[dim])
            raise ValueError(f"valid has lengths along {name!r}; this model has {known}")
        if len(each) != samples or not all(1 <= length <= size for length in each):
            raise ValueError(
                f"valid needs a length of 1 to {size} along {name!r} for each of {samples} "
                f"samples; got {each}"
            )
