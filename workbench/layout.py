"""Where the pieces of one logical tensor live.

A *dim* belongs to a tensor (``"time"``); an *axis* belongs to the device mesh (``"sp"``).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Shaped
from torch import Tensor

#: Names that every activation has besides the spec's own dims.
RESERVED = ("batch", "model", "heads", "channel")

#: The dims that one attention runs along, jointly.
Stage = tuple[str, ...]


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
        return tuple(self.items()) == tuple(other.items())

    def __hash__(self) -> int:
        return hash(tuple(self.items()))

    def __repr__(self) -> str:
        return repr(self._sizes)


@dataclass(frozen=True)
class Layout:
    """The logical sizes of a tensor and what each rank holds of it.

    Parameters
    ----------
    sizes : Dims
        Logical size of every dim, in the tensor's order.
    split : str or None
        The dim that is cut over the ranks. Each rank holds ``ceil(size / p)`` of it, the last
        ones filled up with zeros where ``p`` does not divide the size.
    value : {"whole", "shared", "partial"}
        What an unsplit tensor is. ``"whole"``: every rank holds the same copy and goes on to
        compute the same. ``"shared"``: the same copy, from which each rank computes its own
        part, so that its *gradient* is a partial sum. ``"partial"``: the ranks' tensors add
        up to the logical one.
    axis : str
        The mesh axis over which ``split`` is cut.

    Examples
    --------
    >>> layout = Layout(Dims({"batch": 1, "time": 5, "space": 8, "model": 4}), "time")
    >>> str(layout), layout.local_shape(2), layout.valid(rank=1, p=2)
    ('[B, T/sp, S, M]', (1, 3, 8, 4), 2)
    """

    sizes: Dims
    split: str | None = None
    value: Literal["whole", "shared", "partial"] = "whole"
    axis: str = "sp"

    def __post_init__(self):
        if self.split is not None and self.split not in self.sizes:
            raise ValueError(
                f"cannot split {self.split!r}: this tensor has the dims {list(self.sizes)}"
            )
        assert self.split is None or self.value == "whole", "a split tensor has no other state"

    def __str__(self) -> str:
        # A dim whose letter stands for another, too, is spelled out, and alike in all tensors.
        letters = [name[0].upper() for name in {*self.sizes, *RESERVED, "ff"}]
        names = [
            letter if letters.count(letter) == 1 or name in RESERVED else name.capitalize()
            for letter, name in ((name[0].upper(), name) for name in self.sizes)
        ]
        marked = [
            f"{short}/{self.axis}" if name == self.split else short
            for short, name in zip(names, self.sizes, strict=True)
        ]
        note = {"whole": "", "shared": "", "partial": " (partial sums)"}[self.value]
        return f"[{', '.join(marked)}]{note}"

    def with_split(self, dim: str | None) -> "Layout":
        """The same tensor cut along ``dim`` (or whole, for ``None``)."""
        return replace(self, split=dim, value="whole")

    def with_value(self, value: str) -> "Layout":
        """The same tensor, unsplit, as ``"whole"``, ``"shared"`` or ``"partial"``."""
        return replace(self, split=None, value=value)

    def gradient(self) -> "Layout":
        """The layout of the gradient of a tensor that has this layout."""
        dual = {"whole": "whole", "shared": "partial", "partial": "shared"}
        return replace(self, value=dual[self.value])

    def position(self, dim: str) -> int:
        """Index of ``dim`` among the tensor's dims."""
        return tuple(self.sizes).index(dim)

    def local_shape(self, p: int) -> tuple[int, ...]:
        """Shape of the buffer on each of ``p`` ranks, padding included."""
        return tuple(
            shard_size(size, p) if name == self.split else size for name, size in self.sizes.items()
        )

    def valid(self, rank: int, p: int) -> int:
        """How many entries of the split dim on ``rank`` are data, not padding."""
        assert self.split is not None
        size, part = self.sizes[self.split], shard_size(self.sizes[self.split], p)
        return max(0, min(size - rank * part, part))


def shard_size(size: int, p: int) -> int:
    """Entries that each of ``p`` ranks holds of a dim: ``ceil(size / p)``."""
    return -(-size // p)


#: Collective that turns one state into another; states are "split", "whole", "shared", "partial".
#: Source: the paper's Table 2 (arXiv:2403.10266) for the first three rows; Megatron-LM's f and g
#: (arXiv:1909.08053, 2205.05198) for the rest. The gradient of each row is again a row.
_COLLECTIVE = {
    ("split", "split"): "all_to_all",
    ("split", "whole"): "all_gather",
    ("whole", "split"): None,
    ("split", "shared"): "all_gather",
    ("partial", "split"): "reduce_scatter",
    ("partial", "whole"): "all_reduce",
    ("partial", "shared"): "all_reduce",
    ("whole", "shared"): None,
}


def collective_between(before: Layout, after: Layout) -> str | None:
    """Name the collective that turns one layout of a tensor into another.

    Returns
    -------
    str or None
        ``None`` where nothing is sent: the layouts agree, or each rank just slices its copy.

    Raises
    ------
    ValueError
        If the two are not layouts of the same tensor, or no single collective does it.

    Examples
    --------
    >>> video = Layout(Dims({"batch": 1, "time": 4, "space": 8, "model": 4}), "time")
    >>> collective_between(video, video.with_split("space"))
    'all_to_all'
    >>> collective_between(video, video.with_split(None))
    'all_gather'
    >>> collective_between(video.with_split(None), video) is None
    True
    """
    if before.sizes != after.sizes:
        raise ValueError(f"not the same tensor: {before.sizes} and {after.sizes}")
    if before == after:
        return None
    states = tuple("split" if side.split else side.value for side in (before, after))
    if states not in _COLLECTIVE:
        raise ValueError(f"no single collective turns {before} ({states[0]}) into {states[1]}")
    return _COLLECTIVE[states]


def pad_to(x: Shaped[Tensor, "..."], dim: int, size: int) -> Shaped[Tensor, "..."]:
    """Fill ``x`` up with zeros at the end of ``dim``; ``x`` itself if it is long enough."""
    missing = size - x.shape[dim]
    if missing <= 0:
        return x
    return F.pad(x, (0, 0) * (x.dim() - 1 - dim) + (0, missing))


def take_shard(x: Shaped[Tensor, "..."], layout: Layout, rank: int, p: int):
    """Cut out of the whole tensor ``x`` the padded part that ``rank`` of ``p`` holds."""
    if layout.split is None:
        return x
    dim = layout.position(layout.split)
    part, valid = shard_size(x.shape[dim], p), layout.valid(rank, p)
    start = min(rank * part, x.shape[dim])
    return pad_to(x.narrow(dim, start, valid), dim, part)


def trim_shard(x: Shaped[Tensor, "..."], layout: Layout, rank: int, p: int):
    """Drop the padding of the part that ``rank`` of ``p`` holds; the inverse of `take_shard`."""
    if layout.split is None:
        return x
    return x.narrow(layout.position(layout.split), 0, layout.valid(rank, p))


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What a strategy needs to know of a model: its dims, stages, heads and widths.

    Parameters
    ----------
    dims : mapping of str to int
        The sequence dims by name, outermost first: ``{"time": 16, "space": 256}``.
    stages : sequence of tuples of str
        The dims that each attention of a layer runs along, jointly. A string stands for one dim.
    d_model, num_heads : int
        Width of the residual stream; attention heads, which must divide it.
    batch : int
        Samples in one step.
    mlp_ratio : int
        Width of the MLP's hidden layer / ``d_model``.
    """

    dims: Mapping[str, int]
    stages: Sequence[Stage | str]
    d_model: int
    num_heads: int
    batch: int = 1
    mlp_ratio: int = 4

    def __post_init__(self):
        stages = tuple((s,) if isinstance(s, str) else tuple(s) for s in self.stages)
        object.__setattr__(self, "dims", Dims(self.dims))
        object.__setattr__(self, "stages", stages)
        _check_dims(self.dims, stages)
        for name in ("d_model", "num_heads", "batch", "mlp_ratio"):
            check_count(name, getattr(self, name))
        if self.d_model % self.num_heads:
            raise ValueError(
                f"d_model={self.d_model} is not divisible by num_heads={self.num_heads}: every "
                f"head needs the same width; try d_model={self.d_model // self.num_heads + 1}"
                f"*{self.num_heads}={(self.d_model // self.num_heads + 1) * self.num_heads}"
            )

    @property
    def stream(self) -> Layout:
        """The residual stream ``[B, *dims, M]``, whole."""
        return Layout(Dims({"batch": self.batch, **self.dims, "model": self.d_model}))

    def heads(self, stream: Layout) -> Layout:
        """Queries, keys and values ``[B, *dims, H, C]``, cut as the residual stream is."""
        channel = self.d_model // self.num_heads
        sizes = {"batch": self.batch, **self.dims, "heads": self.num_heads, "channel": channel}
        return replace(stream, sizes=Dims(sizes))

    def local_elements(self, dim: str | None, p: int) -> int:
        """Elements of the residual stream on one of ``p`` ranks when ``dim`` is cut, padded."""
        count = self.batch * self.d_model
        for name, size in self.dims.items():
            count *= shard_size(size, p) if name == dim else size
        return count


def check_count(name: str, value: object) -> None:
    """Raise ValueError unless ``value`` is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")


def _check_dims(dims: Dims, stages: tuple[Stage, ...]) -> None:
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
