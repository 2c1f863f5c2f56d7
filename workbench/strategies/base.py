"""The reference: one device. Every strategy is this class with a few hooks overridden."""

from collections.abc import Mapping, Sequence
from functools import partial
from math import prod
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from workbench.comm import Comm
from workbench.dims import Stage
from workbench.geometry import Geometry
from workbench.layout import Layout
from workbench.mesh import Mesh
from workbench.strategies.attention import Heads, KVHeads, attention, fold, unfold
from workbench.strategies.context import cut_text, gather_text, gathered_elements

#: Ranks along the one axis of a strategy, or along each of several.
Ranks = int | Mapping[str, int]


#: One rank's part of the residual stream.
Stream = Float[Tensor, "batch *dims model"]
#: The same after a change of layout; inside Megatron's branches.
Relaid = Float[Tensor, "batch *new_dims model"]


def count_of(ranks: Ranks) -> int:
    """All ranks together."""
    return ranks if isinstance(ranks, int) else prod(ranks.values())


class Strategy:
    """One device: every hook is the identity, attention sees the whole sequence.

    Parameters
    ----------
    comm : Comm or Mesh
        The mesh axis to compute along; a mesh, if the strategy has ``axes``.
    geometry : Geometry
        Dims, stages, heads and widths of the model.
    shard : str or None
        The dim that is cut before the first stage, where the strategy cuts one.
    """

    #: Name in `STRATEGIES`, forward volume as the paper writes it, and where it is from.
    name: ClassVar[str] = "single"
    formula: ClassVar[str] = "0"
    source: ClassVar[str] = "one device; the reference"
    #: Is a dim of the residual stream cut?
    cuts_sequence: ClassVar[bool] = False
    #: Does the backward gather a branch's input again, rather than keep it gathered?
    regather: ClassVar[bool] = False
    #: The axes of the mesh that it needs; a strategy of one axis calls it as it likes.
    axes: ClassVar[tuple[str, ...]] = ()
    #: What can be chosen: name -> its values, the default first. Each is a class attribute, too.
    options: ClassVar[Mapping[str, tuple]] = {}
    #: Weights of which each rank holds one part: ending of the name -> the dim that is cut.
    cut_weights: ClassVar[Mapping[str, int]] = {}

    def __init__(self, comm: Comm | Mesh, geometry: Geometry, shard: str | None = None):
        self.comm, self.geometry = comm, geometry
        self.start: Layout = geometry.stream
        if self.cuts_sequence and comm.size > 1:
            self.start = self.start.with_split(shard)
        self.text: Layout = cut_text(geometry, self._ranks()) if self.cuts() else geometry.text

    @classmethod
    def cuts(cls) -> bool:
        """Tell whether the ranks compute different things: on other tokens or with other heads."""
        return cls.cuts_sequence or bool(cls.cut_weights)

    def _ranks(self) -> list[Comm]:
        """The ranks along each of its axes."""
        return [self.comm[axis] for axis in self.axes] or [self.comm]

    @classmethod
    def with_options(cls, **chosen) -> type["Strategy"]:
        """The same strategy, under the same name, with other values of its `options`.

        Raises
        ------
        ValueError
            If there is no such option or value.
        """
        for name, value in chosen.items():
            if name not in cls.options:
                known = ", ".join(cls.options) or "none"
                raise ValueError(f"{cls.name} has no option {name!r}; its options: {known}")
            if value not in cls.options[name]:
                known = ", ".join(map(repr, cls.options[name]))
                raise ValueError(f"{name} of {cls.name} must be one of {known}; got {value!r}")
        if all(getattr(cls, name) == value for name, value in chosen.items()):
            return cls
        like = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
        return type(cls.__name__, (cls,), {**like, "__doc__": cls.__doc__, **chosen})

    @classmethod
    def check(cls, geometry: Geometry, p: Ranks) -> None:
        """Raise ValueError if the strategy can't run ``geometry`` on ``p`` ranks."""

    def arrange(
        self, x: Stream, layout: Layout, stage: Stage, upcoming: Sequence[Stage]
    ) -> tuple[Relaid, Layout]:
        """Re-lay the residual stream before attending along ``stage``; others come after it."""
        return x, layout

    def inside(self, layout: Layout, stage: Stage) -> Layout:
        """The layout of an attention's branch: its normalised input is re-laid, its output back."""
        return layout

    def along(self, layout: Layout) -> Comm:
        """The ranks over which ``layout`` is cut."""
        return self.comm[layout.axis] if isinstance(self.comm, Mesh) else self.comm

    def enter(self, h: Stream, layout: Layout) -> Relaid:
        """Prepare the normalised input of a branch (attention or MLP)."""
        return h

    def project(self, h: Stream, layout: Layout, *maps: tuple[Tensor, Tensor]) -> list[Tensor]:
        """`enter` and then a branch's first linear maps, each a weight and a bias."""
        h = self.enter(h, layout)
        return [F.linear(h, weight, bias) for weight, bias in maps]

    def keys_and_values(self, text: Tensor, *maps: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """Keys and values of the whole text, for this rank's heads, from its part of the text."""
        gather = partial(gather_text, geometry=self.geometry, axes=self._ranks())
        cut = self.text.split is not None
        text = gather(text) if cut and self.cut_weights else text
        k, v = (F.linear(text, weight, bias) for weight, bias in maps)
        if cut and not self.cut_weights:
            k, v = gather(torch.cat([k, v], -1)).chunk(2, -1)
        return k, v

    def attend(self, q: Heads, k: KVHeads, v: KVHeads, layout: Layout, stage: Stage) -> Heads:
        """Softmax attention along the dims of ``stage``; the other dims are batch."""
        along = [layout.position(dim) for dim in stage]
        out = attention(*(fold(t, along) for t in (q, k, v)), stage)
        return unfold(out, along, q.shape)

    def leave(self, h: Stream, layout: Layout) -> Relaid:
        """Finish a branch's output before its bias and the residual are added."""
        return h

    def shard_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This rank's part of the logical weights."""
        p, rank = self.comm.size, self.comm.rank
        return {
            name: w if (dim := self.cut_dim(name)) is None else w.chunk(p, dim)[rank].clone()
            for name, w in weights.items()
        }

    @classmethod
    def cut_dim(cls, name: str) -> int | None:
        """Which dim of the weight ``name`` is cut over the ranks; ``None`` if none is."""
        ends = (dim for ending, dim in cls.cut_weights.items() if name.endswith(ending))
        return next(ends, None)

    @classmethod
    def forward_elements(
        cls, geometry: Geometry, p: Ranks, shard: str | None, branches: Sequence[Stage | None]
    ) -> int:
        """Elements each rank sends forward, p > 1; branches: an attention's stage or None (MLP)."""
        return 0

    @classmethod
    def backward_elements(
        cls, geometry: Geometry, p: Ranks, shard: str | None, branches: Sequence[Stage | None]
    ) -> int:
        """Closed form of the backward pass; mirrors the forward unless overridden."""
        return cls.forward_elements(geometry, p, shard, branches)

    @classmethod
    def text_elements(
        cls, geometry: Geometry, p: Ranks, branches: Sequence[Stage | None]
    ) -> tuple[int, int]:
        """Closed form of what gathering a sharded text sends, forward and backward."""
        if geometry.context == "replicated" or not geometry.context_length or not cls.cuts():
            return 0, 0
        width = geometry.d_model if cls.cut_weights else 2 * geometry.kv_heads * geometry.channel
        each = gathered_elements(geometry, [p[a] for a in cls.axes] or [p], width)
        forward = each * sum(stage is not None for stage in branches)
        return forward, 0 if cls.cut_weights else forward

    @classmethod
    def arranged_elements(
        cls, geometry: Geometry, p: Ranks, shard: str | None, branches: Sequence[Stage | None]
    ) -> int:
        """Closed form of what `arrange` alone sends forward."""
        return 0
