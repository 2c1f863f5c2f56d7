"""The model that is trained: patches in, a transformer under any strategy, patches out.

All that lies around the transformer works on single tokens, so it runs in any layout on the part
of the tokens that a rank holds. Its weights are replicated.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import isqrt, log

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from workbench.dims import Dims
from workbench.layout import Layout, take_shard
from workbench.model import Affine, Transformer
from workbench.strategies import Strategy
from workbench.train.task import Patches, TrainTask
from workbench.transformer import TransformerSpec, initial_weights

#: Sines and cosines of each coordinate, and of the moment.
FEATURES = 32
#: The shortest moment that the features tell apart is 1 / this, as is usual for diffusion.
MOMENTS = 1000

Tokens = Float[Tensor, "batch time space model"]


class Denoiser(nn.Module):
    """One rank's part of the model, for batches of one shape.

    Parameters
    ----------
    spec : TransformerSpec
        The transformer, with the dims of one bucket.
    strategy : Strategy
        Bound to this rank's `Comm`.
    weights : dict of str to Tensor
        Logical weights, as `first_weights` makes them; the strategy takes its part.
    """

    def __init__(self, spec: TransformerSpec, strategy: Strategy, weights: Mapping[str, Tensor]):
        super().__init__()
        self.spec, self.strategy = spec, strategy
        for name in _OUTSIDE:
            pair = (weights[f"{name}.{kind}"].clone() for kind in ("weight", "bias"))
            self.add_module(name, Affine(*pair))
        self.body = Transformer(spec, strategy, weights)

    def forward(self, noisy: Patches, moment: Float[Tensor, " batch"]) -> tuple[Tensor, Layout]:
        """Say what the whole ``noisy`` is without its noise, for this rank's tokens of it."""
        knows = F.silu(_linear(self.moment, waves(moment * MOMENTS).to(noisy.dtype)))
        x = _linear(self.patch, self.mine(noisy))
        x = x + _linear(self.place, self.mine(self.places(noisy)))
        x = x + knows[:, None, None]
        y, layout = self.body(x)
        scale, shift = _linear(self.modulate, knows)[:, None, None].chunk(2, -1)
        y = F.layer_norm(y, y.shape[-1:]) * (1 + scale) + shift
        return _linear(self.pixels, y), layout

    def mine(self, whole: Tensor) -> Tensor:
        """This rank's part of a tensor of tokens, as the transformer wants it."""
        comm = self.strategy.along(self.strategy.start)
        return take_shard(whole, layout_of(whole, self.strategy.start), comm.rank, comm.size)

    def places(self, like: Patches) -> Float[Tensor, "1 time space features"]:
        """Where each token is: its frame, its row and its column (in 16ths of a frame)."""
        time, space = self.spec.dims["time"], self.spec.dims["space"]
        rows = isqrt(space)
        frame = torch.arange(time, device=like.device)[:, None].expand(time, space)
        token = torch.arange(space, device=like.device).expand(time, space)
        across = [(t + 0.5) * 16 / rows for t in (token // rows, token % rows)]
        return torch.cat([waves(t) for t in (frame, *across)], -1).to(like.dtype)[None]

    def named_weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        """This rank's parameters under their logical names."""
        for name in _OUTSIDE:
            for kind, parameter in getattr(self, name).named_parameters():
                yield f"{name}.{kind}", parameter
        yield from self.body.named_weights()


#: What lies around the transformer.
_OUTSIDE = ("patch", "place", "moment", "modulate", "pixels")
#: These begin at 0, as the last layers of diffusion transformers do.
#: Source: Peebles & Xie (2022), arXiv:2212.09748, section 3.2.
_SILENT_AT_FIRST = ("modulate", "pixels")


def first_weights(task: TrainTask, device: str = "cpu") -> dict[str, Tensor]:
    """All logical weights before training, drawn from the task's seed."""
    weights = initial_weights(task.spec, seed=task.seed, dtype=task.dtype, device=device)
    m, pixels = task.spec.d_model, task.patch**2
    shapes = {
        "patch": (m, pixels), "place": (m, 3 * FEATURES), "moment": (m, FEATURES),
        "modulate": (2 * m, m), "pixels": (pixels, m),
    }  # fmt: skip
    generator = torch.Generator().manual_seed(task.seed + 1)
    options = {"device": device, "dtype": getattr(torch, task.dtype)}
    for name, shape in shapes.items():
        weight = torch.randn(shape, generator=generator, device="cpu") * shape[1] ** -0.5
        weight *= name not in _SILENT_AT_FIRST
        weights[f"{name}.weight"] = weight.to(**options)
        weights[f"{name}.bias"] = torch.zeros(shape[0], **options)
    return weights


def waves(x: Tensor) -> Float[Tensor, "*shape features"]:
    """Sines and cosines of ``x`` with wavelengths from 2 pi to 10,000 times that.

    References
    ----------
    Vaswani et al. (2017), arXiv:1706.03762, section 3.5.
    """
    powers = torch.arange(FEATURES // 2, device=x.device, dtype=torch.float64) / (FEATURES // 2)
    angles = x[..., None] * torch.exp(-log(10_000) * powers)
    return torch.cat([angles.sin(), angles.cos()], -1)


def layout_of(whole: Tensor, stream: Layout) -> Layout:
    """The layout of a tensor of tokens of any width that is cut as the residual stream is."""
    return replace(stream, sizes=Dims(dict(zip(stream.sizes, whole.shape, strict=True))))


def _linear(part: Affine, x: Tensor) -> Tensor:
    return F.linear(x, part.weight, part.bias)
