"""The shape of a model, as far as a strategy needs to know it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from workbench.dims import Dims, Stage, check_count, check_dims
from workbench.layout import Layout, Order, shard_size


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What a strategy needs to know of a model: its dims, stages, heads and widths.

    Parameters
    ----------
    dims : mapping of str to int
        The sequence dims by name, outermost first: ``{"time": 16, "space": 256}``.
    stages : sequence of Stage, tuple of str or str
        The dims that each attention of a layer runs along, jointly. A string stands for one dim.
    d_model, num_heads : int
        Width of the residual stream; attention heads, which must divide it.
    num_kv_heads : int or None
        Heads of keys and values, each for ``num_heads / num_kv_heads`` heads of queries (grouped
        queries; 1 is multi-query attention). ``None``: as many as of queries.
    batch : int
        Samples in one step.
    mlp_ratio : int
        Width of the MLP's hidden layer / ``d_model``.
    context_length : int
        Tokens of a text that all tokens attend to after each attention (cross-attention); 0 for
        none.
    context : {"replicated", "sharded"}
        Every rank has the whole text; or its tokens are cut over the strategy's ranks, which
        gather it for each cross-attention.
    """

    dims: Mapping[str, int]
    stages: Sequence[Stage | tuple[str, ...] | str]
    d_model: int
    num_heads: int
    num_kv_heads: int | None = None
    batch: int = 1
    mlp_ratio: int = 4
    context_length: int = 0
    context: Literal["replicated", "sharded"] = "replicated"

    def __post_init__(self):
        stages = tuple(Stage(stage) for stage in self.stages)
        object.__setattr__(self, "dims", Dims(self.dims))
        object.__setattr__(self, "stages", stages)
        check_dims(self.dims, stages)
        for name in ("d_model", "num_heads", "batch", "mlp_ratio"):
            check_count(name, getattr(self, name))
        if self.context_length != 0:
            check_count("context_length", self.context_length)
        if self.context not in ("replicated", "sharded"):
            raise ValueError(f"context must be 'replicated' or 'sharded', got {self.context!r}")
        if self.num_kv_heads is not None:
            check_count("num_kv_heads", self.num_kv_heads)
        if self.num_heads % self.kv_heads:
            raise ValueError(
                f"num_heads={self.num_heads} is not a multiple of num_kv_heads="
                f"{self.num_kv_heads}: each head of keys and values serves equally many queries'"
            )
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

    @property
    def text(self) -> Layout:
        """The texts ``[B, L, M]``, whole."""
        sizes = {"batch": self.batch, "context": self.context_length, "model": self.d_model}
        return Layout(Dims(sizes))

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_kv_heads or self.num_heads

    @property
    def channel(self) -> int:
        """Width of one head."""
        return self.d_model // self.num_heads

    def heads(self, stream: Layout, count: int | None = None, first: bool = False) -> Layout:
        """Queries, or ``count`` heads of keys ``[B, *dims, H, C]``, cut as the residual stream.

        ``first``: ``[H, B, *dims, C]``.
        """
        heads = {"heads": count or self.num_heads}
        tokens = {"batch": self.batch, **self.dims}
        sizes = {**heads, **tokens} if first else {**tokens, **heads}
        return replace(stream, sizes=Dims({**sizes, "channel": self.channel}))

    def local_elements(self, dim: str | None, p: int, order: Order = "contiguous") -> int:
        """Elements of the residual stream on one of ``p`` ranks when ``dim`` is cut, padded."""
        count = self.batch * self.d_model
        for name, size in self.dims.items():
            count *= shard_size(size, p, order) if name == dim else size
        return count
