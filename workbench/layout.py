"""Where the pieces of one logical tensor live.

A *dim* belongs to a tensor (``"time"``); an *axis* belongs to the device mesh (``"sp"``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Shaped
from torch import Tensor

from workbench.dims import RESERVED, Dims

#: How the entries of a cut dim are dealt to the ranks.
Order = Literal["contiguous", "zigzag", "striped"]


class Cut(NamedTuple):
    """How one axis has cut a tensor, seen from one rank: ``index`` is its place on the axis."""

    dim: str
    axis: str
    parts: int
    index: int
    order: Order = "contiguous"


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
    order : {"contiguous", "zigzag", "striped"}
        Which entries of ``split`` a rank holds: a run of them; the runs r and 2p-1-r of 2p; or
        every p-th, from r on. The last two share out causal attention evenly.
    outer : tuple of Cut
        How other axes have cut the tensor before; the ranks along ``axis`` share what that leaves.

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
    order: Order = "contiguous"
    outer: tuple["Cut", ...] = ()

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
        marked = []
        for short, name in zip(names, self.sizes, strict=True):
            axes = [cut.axis for cut in self.outer if cut.dim == name]
            axes += [self.axis] if name == self.split else []
            by = "/".join(axes) if len(axes) < 2 else f"({'x'.join(axes)})"
            marked.append(f"{short}/{by}" if axes else short)
        note = {"whole": "", "shared": "", "partial": " (partial sums)"}[self.value]
        return f"[{', '.join(marked)}]{note}"

    def with_split(self, dim: str | None) -> "Layout":
        """The same tensor cut along ``dim`` (or whole, for ``None``)."""
        return replace(self, split=dim, value="whole", order="contiguous")

    def with_value(self, value: str) -> "Layout":
        """The same tensor, unsplit, as ``"whole"``, ``"shared"`` or ``"partial"``."""
        return replace(self, split=None, value=value, order="contiguous")

    def turned(self, axis: str, parts: int, index: int) -> "Layout":
        """The same layout, seen by the ranks along another ``axis`` that has cut the tensor.

        ``parts, index`` are the ranks along the present axis, and which of them this is. One rank
        cuts nothing, and is forgotten.
        """
        mine = Cut(self.split, self.axis, parts, index, self.order)
        other = next(cut for cut in self.outer if cut.axis == axis)
        rest = tuple(cut for cut in self.outer if cut.axis != axis)
        inside = [*self.outer[self.outer.index(other) + 1 :], *([mine] if parts > 1 else [])]
        assert all(cut.dim != other.dim for cut in inside), "only a dim's innermost cut can move"
        outer = (*rest, mine) if parts > 1 else rest
        return replace(self, split=other.dim, axis=axis, order=other.order, outer=outer)

    def gradient(self) -> "Layout":
        """The layout of the gradient of a tensor that has this layout."""
        dual = {"whole": "whole", "shared": "partial", "partial": "shared"}
        return replace(self, value=dual[self.value])

    def position(self, dim: str) -> int:
        """Index of ``dim`` among the tensor's dims."""
        return tuple(self.sizes).index(dim)

    @property
    def shared(self) -> Dims:
        """Sizes of what the ranks along ``axis`` hold together, outer cuts' padding included."""
        if not self.outer:  # nearly always, and asked for in every collective
            return self.sizes
        sizes = dict(self.sizes)
        for cut in self.outer:
            sizes[cut.dim] = shard_size(sizes[cut.dim], cut.parts, cut.order)
        return Dims(sizes)

    def local_shape(self, p: int) -> tuple[int, ...]:
        """Shape of the buffer on each of ``p`` ranks, padding included."""
        return tuple(
            shard_size(size, p, self.order) if name == self.split else size
            for name, size in self.shared.items()
        )

    def held(self, dim: str, rank: int, p: int) -> Sequence[int]:
        """Which entries of ``dim`` are on ``rank`` of ``p``, in order, without padding."""
        entries, size = range(self.sizes[dim]), self.sizes[dim]
        for cut in self.outer:
            if cut.dim == dim:
                entries = dealt(entries, size, cut.index, cut.parts, cut.order)
                size = shard_size(size, cut.parts, cut.order)
        return dealt(entries, size, rank, p, self.order) if dim == self.split else entries

    def valid(self, rank: int, p: int) -> int:
        """How many entries of the split dim on ``rank`` are data, not padding."""
        assert self.split is not None
        return len(self.held(self.split, rank, p))


def shard_size(size: int, p: int, order: Order = "contiguous") -> int:
    """Entries that each of ``p`` ranks holds of a dim: ``ceil(size / p)``; zigzag's in two runs."""
    return 2 * -(-size // (2 * p)) if order == "zigzag" else -(-size // p)


def dealt(entries: Sequence[int], size: int, rank: int, p: int, order: Order) -> Sequence[int]:
    """What ``rank`` gets of ``entries``, which would be ``size`` with their padding."""
    runs = dealt_runs(entries, size, rank, p, order)
    return runs[0] if len(runs) == 1 else [entry for held in runs for entry in held]


def dealt_runs(
    entries: Sequence[int], size: int, rank: int, p: int, order: Order
) -> list[Sequence[int]]:
    """The same in the pieces in which it is cut out of ``entries``, each in one step."""
    if order == "striped":
        return [entries[rank::p]]
    if order == "contiguous":
        part = shard_size(size, p)
        return [entries[rank * part : (rank + 1) * part]]
    run = shard_size(size, 2 * p)
    return [entries[i * run : (i + 1) * run] for i in (rank, 2 * p - 1 - rank)]


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
    shape, cut = layout.local_shape(p), {layout.split, *(cut.dim for cut in layout.outer)}
    for dim, name in enumerate(layout.sizes):
        if name in cut:
            x = pad_to(_entries(x, dim, layout.held(name, rank, p)), dim, shape[dim])
    return x


def _entries(x: Tensor, dim: int, held: Sequence[int]) -> Tensor:
    if not held:
        return x.narrow(dim, 0, 0)
    if held[-1] - held[0] == len(held) - 1:
        return x.narrow(dim, held[0], len(held))
    return x.index_select(dim, torch.tensor(held, device=x.device))


def trim_shard(x: Shaped[Tensor, "..."], layout: Layout, rank: int, p: int):
    """Drop the padding of the part that ``rank`` of ``p`` holds; the inverse of `take_shard`."""
    cut = {layout.split, *(cut.dim for cut in layout.outer)}
    for dim, name in enumerate(layout.sizes):
        if name in cut:
            held = layout.held(name, rank, p)
            x = x if len(held) == x.shape[dim] else x.narrow(dim, 0, len(held))
    return x


def put_shard(
    whole: Shaped[Tensor, "..."], x: Shaped[Tensor, "..."], layout: Layout, rank: int, p: int
) -> None:
    """Write the part that ``rank`` of ``p`` holds to its places in the ``whole`` tensor."""
    places = [torch.tensor(layout.held(name, rank, p), dtype=torch.long) for name in layout.sizes]
    whole[torch.meshgrid(*places, indexing="ij")] = trim_shard(x, layout, rank, p)
