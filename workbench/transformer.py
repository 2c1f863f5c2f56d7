"""What a multi-dimensional transformer is: its dims, stages, sizes and weights; and named ones.

A layer runs its stages one after another. A stage is attention along the stage's dims and, with
``mlp_per="stage"``, an MLP; with ``mlp_per="layer"`` one MLP ends the layer. Each of these
branches is pre-norm with a residual: ``x + branch(norm(x))``.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import prod
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from workbench.dims import Stage, check_count
from workbench.geometry import Geometry


class Place(NamedTuple):
    """One branch: the prefix of its weights' names, its layer and stage, the dims it attends."""

    name: str
    layer: int
    index: int
    stage: Stage | None


@dataclass(frozen=True, kw_only=True)
class TransformerSpec(Geometry):
    """A transformer over any number of named sequence dims. All counts are of the whole model.

    Parameters
    ----------
    num_layers : int
        One layer runs all stages once.
    mlp_per : {"stage", "layer"}
        An MLP after every attention, as in the paper's table, or one at the end of the layer.
    source : str
        Where the numbers are from; no part of equality.

    Notes
    -----
    The other parameters are those of `Geometry`.

    Examples
    --------
    >>> spec = TransformerSpec(dims={"time": 4, "space": 8}, stages=("space", "time"),
    ...                        d_model=32, num_heads=4, num_layers=2)
    >>> spec.stages, spec.tokens, spec.parameters
    ((('space',), ('time',)), 32, 50816)
    """

    num_layers: int
    mlp_per: Literal["stage", "layer"] = "stage"
    source: str = field(default="", compare=False)

    def __post_init__(self):
        super().__post_init__()
        check_count("num_layers", self.num_layers)
        if self.mlp_per not in ("stage", "layer"):
            raise ValueError(f"mlp_per must be 'stage' or 'layer', got {self.mlp_per!r}")

    @property
    def tokens(self) -> int:
        """Tokens of one sample."""
        return prod(self.dims.values())

    @property
    def branches(self) -> tuple[Stage | None, ...]:
        """All branches in order: the stage of an attention, ``None`` for an MLP."""
        if self.mlp_per == "stage":
            layer = tuple(branch for stage in self.stages for branch in (stage, None))
        else:
            layer = (*self.stages, None)
        return layer * self.num_layers

    def places(self) -> Iterator["Place"]:
        """Where each of the `branches` stands, and the prefix of its weights' names."""
        count = len(self.branches) // self.num_layers
        for layer in range(self.num_layers):
            attentions = mlps = 0
            for stage in self.branches[:count]:
                if stage is None:
                    mlps += 1
                    yield Place(f"layers.{layer}.mlp.{mlps - 1}", layer, attentions - 1, stage)
                else:
                    attentions += 1
                    name = f"layers.{layer}.attention.{attentions - 1}"
                    yield Place(name, layer, attentions - 1, stage)

    @property
    def parameters(self) -> int:
        """Weights and biases of the whole model."""
        one = replace(self, num_layers=1)
        return self.num_layers * sum(prod(shape) for shape in one.weight_shapes().values())

    @property
    def flops(self) -> int:
        """Flops of one training step: matrix products and attention, forward and backward.

        The backward costs twice the forward. Causal attention computes the pairs that are seen;
        a window is only a mask and saves nothing. Norms, activations, biases and the loss are
        left out, and so is what a fused attention kernel computes a second time.
        """
        tokens = self.batch * self.tokens
        kv_width = self.kv_heads * self.channel
        projections = 4 * tokens * self.d_model * (self.d_model + kv_width)
        mlp = 4 * tokens * self.d_model * self.d_model * self.mlp_ratio
        forward = 0
        for stage in self.branches:
            if stage is None:
                forward += mlp
            else:
                length = prod(self.dims[dim] for dim in stage)
                halved = stage.causal and stage.window is None
                pairs = tokens * (length + 1) // 2 if halved else tokens * length
                forward += projections + 4 * pairs * self.d_model
        return 3 * forward

    def activation_bytes(self, dtype: str = "float32") -> int:
        """M: the size of the whole residual stream [bytes]."""
        return prod(self.stream.sizes.values()) * getattr(torch, dtype).itemsize

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every logical weight, by name."""
        m, hidden = self.d_model, self.d_model * self.mlp_ratio
        kv = (self.kv_heads * self.channel, m)
        attention = {"query": (m, m), "key": kv, "value": kv, "output": (m, m)}
        mlp = {"up": (hidden, m), "down": (m, hidden)}
        shapes: dict[str, tuple[int, ...]] = {}
        for place in self.places():
            prefix, parts = place.name, mlp if place.stage is None else attention
            shapes |= {f"{prefix}.norm.weight": (m,), f"{prefix}.norm.bias": (m,)}
            for name, shape in parts.items():
                shapes |= {f"{prefix}.{name}.weight": shape, f"{prefix}.{name}.bias": shape[:1]}
        return shapes


#: Named specs. Toy ones are ours; they run in a second on a laptop.
PRESETS: dict[str, TransformerSpec] = {
    "toy-text": TransformerSpec(
        dims={"tokens": 32}, stages=(("tokens",),), d_model=32, num_heads=4, num_layers=2,
        source="ours: a language model in miniature, one dim",
    ),
    "toy-video": TransformerSpec(
        dims={"time": 8, "space": 16}, stages=(("space",), ("time",)), d_model=32, num_heads=4,
        num_layers=2, source="ours: space/time attention in miniature",
    ),
    "toy-volume": TransformerSpec(
        dims={"depth": 4, "height": 6, "width": 8}, stages=(("depth",), ("height",), ("width",)),
        d_model=32, num_heads=4, num_layers=2,
        source="ours: axial attention over three dims in miniature",
    ),
    # 80 frames of 512 x 512: 1,024 tokens a frame after the autoencoder and 2 x 2 patches.
    "stdit-xl-2": TransformerSpec(
        dims={"time": 80, "space": 1024}, stages=(("space",), ("time",)), d_model=1152,
        num_heads=16, num_layers=28, mlp_per="layer",
        source="Open-Sora 1.0's STDiT-XL/2 as measured in arXiv:2403.10266: depth 28, width "
        "1152, 16 heads, 80 frames of 512 x 512; tokens a frame are inferred",
    ),
}  # fmt: skip


def initial_weights(
    spec: TransformerSpec, *, seed: int = 0, dtype: str = "float32", device: str = "cpu"
) -> dict[str, Tensor]:
    """Draw all logical weights from one seed, the same for every strategy and rank.

    Matrices are normal with variance 1 / fan-in. Biases and norms are small random numbers too,
    rather than 0 and 1, so that a mistake in one of them shows. On ``"meta"``: shapes only.
    """
    generator = None if device == "meta" else torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in spec.weight_shapes().items():
        w = torch.randn(shape, generator=generator, device="meta" if device == "meta" else "cpu")
        w *= shape[-1] ** -0.5 if len(shape) == 2 else 0.1
        if name.endswith("norm.weight"):
            w += 1
        weights[name] = w.to(device=device, dtype=getattr(torch, dtype))
    return weights
