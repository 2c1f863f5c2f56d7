"""What a multi-dimensional transformer is: its dims, stages, sizes and weights; and named ones.

A layer runs its stages one after another. A stage is attention along the stage's dims and, with
``mlp_per="stage"``, an MLP; with ``mlp_per="layer"`` one MLP ends the layer. Each of these
branches is pre-norm with a residual: ``x + branch(norm(x))``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from workbench.dims import Lengths, Stage, check_count, check_lengths
from workbench.geometry import Geometry


class Place(NamedTuple):
    """One branch: the prefix of its weights' names, its layer and stage, the dims it attends."""

    name: str
    layer: int
    index: int
    stage: Stage | None
    kind: Literal["attention", "cross", "mlp"]


@dataclass(frozen=True, kw_only=True)
class TransformerSpec(Geometry):
    """A transformer over any number of named sequence dims. All counts are of the whole model.

    Parameters
    ----------
    num_layers : int
        One layer runs all stages once.
    mlp_per : {"stage", "layer"}
        An MLP after every attention, as in the paper's table, or one at the end of the layer.
    positions : {"none", "learned", "rope"}
        How tokens know their places: not at all; by a learned table for each dim, added to the
        input; or by turning queries and keys, where the channels of a head are shared out among
        the dims of the stage.
    valid : mapping of str to sequence of int
        How many entries each sample has along some dims; the rest is padding, which no token
        attends to and which is neither output nor loss: ``{"time": (16, 11)}`` for a batch of 2.
        The name ``"context"`` stands for the lengths of the texts.
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
    positions: Literal["none", "learned", "rope"] = "none"
    valid: Mapping[str, Sequence[int]] = Lengths({})
    source: str = field(default="", compare=False)

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "valid", Lengths(self.valid))
        check_lengths(self.valid, self.batch, {**self.dims, "context": self.context_length})
        check_count("num_layers", self.num_layers)
        if self.mlp_per not in ("stage", "layer"):
            raise ValueError(f"mlp_per must be 'stage' or 'layer', got {self.mlp_per!r}")
        if self.positions not in ("none", "learned", "rope"):
            raise ValueError(f"positions must be none, learned or rope, got {self.positions!r}")
        for stage in self.stages:
            if self.positions == "rope" and self.channel % (2 * len(stage)):
                raise ValueError(
                    f"rope gives each of the {len(stage)} dims of stage {stage} pairs of channels, "
                    f"so a head's width must be a multiple of {2 * len(stage)}; got {self.channel}"
                )

    @property
    def tokens(self) -> int:
        """Tokens of one sample."""
        return prod(self.dims.values())

    @property
    def real_tokens(self) -> int:
        """Tokens of all samples together, without the padding of shorter ones."""
        whole = {dim: (size,) * self.batch for dim, size in self.dims.items()} | dict(self.valid)
        return sum(prod(whole[dim][i] for dim in self.dims) for i in range(self.batch))

    @property
    def branches(self) -> tuple[Stage | None, ...]:
        """All branches in order: the stage of an attention, ``None`` for cross-attention or MLP."""
        return tuple(stage for _, stage in self.layer_branches()) * self.num_layers

    def layer_branches(self) -> list[tuple[str, Stage | None]]:
        """Kind and stage of each branch of a layer."""
        branches = []
        for stage in self.stages:
            branches.append(("attention", stage))
            branches += [("cross", None)] if self.context_length else []
            branches += [("mlp", None)] if self.mlp_per == "stage" else []
        return branches if self.mlp_per == "stage" else [*branches, ("mlp", None)]

    def places(self) -> Iterator["Place"]:
        """Where each of the `branches` stands, and the prefix of its weights' names."""
        for layer in range(self.num_layers):
            counts = {"attention": 0, "cross": 0, "mlp": 0}
            for kind, stage in self.layer_branches():
                name = f"layers.{layer}.{kind}.{counts[kind]}"
                counts[kind] += 1
                yield Place(name, layer, counts["attention"] - 1, stage, kind)

    @property
    def parameters(self) -> int:
        """Weights and biases of the whole model."""
        return sum(count * prod(shape) for _, shape, count in self.weight_counts())

    def weight_counts(self) -> Iterator[tuple[str, tuple[int, ...], int]]:
        """Name and shape of the weights of one layer and of none, and how often each occurs."""
        for name, shape in replace(self, num_layers=1).weight_shapes().items():
            yield name, shape, self.num_layers if name.startswith("layers.") else 1

    @property
    def flops(self) -> int:
        """Flops of one training step: matrix products and attention, forward and backward.

        The backward costs twice the forward. Causal attention computes the pairs that are seen;
        a window or padding is only a mask and saves nothing. Norms, activations, biases and the
        loss are left out, and so is what a fused attention kernel computes a second time.
        """
        forward, text = self._forward_flops()
        return 3 * forward - text  # the text is given: it has no gradient

    @property
    def forward_flops(self) -> int:
        """Flops of one forward pass, counted as `flops`."""
        return self._forward_flops()[0]

    def _forward_flops(self) -> tuple[int, int]:
        """Flops of a forward pass, and those among them that project the texts."""
        tokens = self.batch * self.tokens
        kv_width = self.kv_heads * self.channel
        projections = 4 * tokens * self.d_model * (self.d_model + kv_width)
        mlp = 4 * tokens * self.d_model * self.d_model * self.mlp_ratio
        text = 4 * self.batch * self.context_length * self.d_model * kv_width
        cross = text + 4 * tokens * self.d_model * (self.d_model + self.context_length)
        layer, branches = 0, self.layer_branches()
        for kind, stage in branches:
            if stage is None:
                layer += mlp if kind == "mlp" else cross
            else:
                length = prod(self.dims[dim] for dim in stage)
                halved = stage.causal and stage.window is None
                pairs = tokens * (length + 1) // 2 if halved else tokens * length
                layer += projections + 4 * pairs * self.d_model
        texts = sum(kind == "cross" for kind, _ in branches)
        return self.num_layers * layer, self.num_layers * texts * text

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
            prefix, parts = place.name, mlp if place.kind == "mlp" else attention
            shapes |= {f"{prefix}.norm.weight": (m,), f"{prefix}.norm.bias": (m,)}
            for name, shape in parts.items():
                shapes |= {f"{prefix}.{name}.weight": shape, f"{prefix}.{name}.bias": shape[:1]}
        if self.positions == "learned":
            shapes |= {f"positions.{dim}": (size, m) for dim, size in self.dims.items()}
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
    # 4 s at 720p: 102 frames are 30 after the autoencoder; 90 x 160 / 4 tokens each.
    "stdit-3": TransformerSpec(
        dims={"time": 30, "space": 3600}, stages=("space", "time"), d_model=1152, num_heads=16,
        num_layers=28,
        source="Open-Sora 1.2's STDiT3-XL/2 (github.com/hpcaitech/Open-Sora): an MLP after every "
        "attention; tokens are inferred; text cross-attention is left out",
    ),
    "latte-xl-2": TransformerSpec(
        dims={"time": 16, "space": 256}, stages=("space", "time"), d_model=1152, num_heads=16,
        num_layers=14,
        source="Ma et al. 2024, arXiv:2401.03048, variant 1: 28 blocks, spatial and temporal in "
        "turn; 16 frames of 256 x 256",
    ),
    "open-sora-plan-1.1": TransformerSpec(
        dims={"time": 17, "space": 1024}, stages=("space", "time"), d_model=1152, num_heads=16,
        num_layers=28,
        source="github.com/PKU-YuanGroup/Open-Sora-Plan, v1.1 (LatteT2V): 65 frames of 512 x 512; "
        "tokens are inferred; text cross-attention is left out",
    ),
    # One stage along all dims: DSP has nothing to switch here.
    "cogvideox-5b": TransformerSpec(
        dims={"time": 13, "height": 30, "width": 45}, stages=(("time", "height", "width"),),
        d_model=3072, num_heads=48, num_layers=42,
        source="Yang et al. 2024, arXiv:2408.06072: full 3-D attention, 49 frames of 480 x 720; "
        "its text tokens are left out",
    ),
    "timesformer-b": TransformerSpec(
        dims={"time": 8, "space": 196}, stages=("time", "space"), d_model=768, num_heads=12,
        num_layers=12, mlp_per="layer",
        source="Bertasius et al. 2021, arXiv:2102.05095: divided attention, 8 frames of 224 x 224 "
        "in patches of 16 x 16; the class token is left out",
    ),
    "vivit-l-3": TransformerSpec(
        dims={"time": 16, "space": 196}, stages=("space", "time"), d_model=1024, num_heads=16,
        num_layers=24, mlp_per="layer",
        source="Arnab et al. 2021, arXiv:2103.15691, model 3 (factorised self-attention), ViT-L "
        "with tubelets of 16 x 16 x 2 from 32 frames of 224 x 224",
    ),
    "evoformer": TransformerSpec(
        dims={"sequence": 128, "residue": 256}, stages=("residue", "sequence"), d_model=256,
        num_heads=8, num_layers=48, mlp_per="layer",
        source="Jumper et al. 2021, doi:10.1038/s41586-021-03819-2: the MSA stack alone (rows, "
        "then columns, then a transition), as first trained; pair stack and gates are left out",
    ),
    "axial-video": TransformerSpec(
        dims={"time": 16, "height": 32, "width": 32}, stages=("time", "height", "width"),
        d_model=512, num_heads=8, num_layers=8,
        source="after Ho et al. 2019, arXiv:1912.12180: axial attention in 3-D; sizes are ours",
    ),
    # 0.25 degrees are 721 x 1440 points; in patches of 8 x 8 about 90 x 180.
    "weather-4d": TransformerSpec(
        dims={"time": 4, "level": 13, "latitude": 90, "longitude": 180},
        stages=("time", "level", "latitude", "longitude"), d_model=512, num_heads=8, num_layers=8,
        source="grid and levels after GraphCast's data, Lam et al. 2022, arXiv:2212.12794; axial "
        "attention over it and all widths are ours",
    ),
    # A gated MLP of three matrices, 14336 wide, has as many weights as two of 5.25 x 4096.
    "llama-3-8b": TransformerSpec(
        dims={"tokens": 8192}, stages=(Stage("tokens", causal=True),), d_model=4096, num_heads=32,
        num_kv_heads=8, num_layers=32, mlp_ratio=5,
        source="Grattafiori et al. 2024, arXiv:2407.21783: 32 layers, 32 heads, 8 of keys; the "
        "gated MLP is replaced by a plain one of nearly as many weights; embeddings left out",
    ),
}  # fmt: skip


def initial_weights(
    spec: TransformerSpec, *, seed: int = 0, dtype: str = "float32", device: str = "cpu"
) -> dict[str, Tensor]:
    """Draw all logical weights from one seed, the same for every strategy and rank.

    Matrices are normal with variance 1 / fan-in. Biases and norms are small random numbers too,
    rather than 0 and 1, so that a mistake in one of them shows. On ``"meta"``: shapes only.
    """
    shapes, weights = spec.weight_shapes(), {}
    if device == "meta":
        of = {"dtype": getattr(torch, dtype), "device": device}
        return {name: torch.empty(shape, **of) for name, shape in shapes.items()}
    generator = torch.Generator().manual_seed(seed)
    for name, shape in shapes.items():
        w = torch.randn(shape, generator=generator)
        w *= shape[-1] ** -0.5 if len(shape) == 2 else 0.1
        if name.endswith("norm.weight"):
            w += 1
        weights[name] = w.to(device=device, dtype=getattr(torch, dtype))
    return weights
