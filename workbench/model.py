"""The model that a spec describes, as torch modules, written once for every strategy."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute
from torch.utils.checkpoint import set_checkpoint_early_stop

from workbench.dims import Lengths, Stage
from workbench.layout import Layout
from workbench.strategies import Strategy
from workbench.strategies.attention import KVHeads, attention, fold, unfold
from workbench.strategies.base import Stream
from workbench.strategies.padding import padded
from workbench.transformer import Place, TransformerSpec


class Affine(nn.Module):
    """The weight and bias of a norm or of a linear map, as this rank holds them."""

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def pair(self) -> tuple[Tensor, Tensor]:
        return self.weight, self.bias


class Branch(nn.Module):
    """What attention and MLP share: a norm before, a residual around."""

    parts: tuple[str, ...] = ()

    def __init__(self, weights: Mapping[str, Tensor], prefix: str, strategy: Strategy):
        super().__init__()
        self.strategy = strategy
        for part in ("norm", *self.parts):
            pair = (weights[f"{prefix}.{part}.{kind}"] for kind in ("weight", "bias"))
            self.add_module(part, Affine(*pair))

    def enter(self, x: Stream, layout: Layout, inside: Layout) -> Tensor:
        h = F.layer_norm(x, x.shape[-1:], *self.norm.pair())
        return self.strategy.comm.relayout(h, layout, inside)

    def leave(self, x: Stream, h: Tensor, last: Affine, layout: Layout, inside: Layout) -> Tensor:
        h = self.strategy.leave(h, inside)
        return x + self.strategy.comm.relayout(h, inside, layout) + last.bias


class Attention(Branch):
    """Multi-head softmax attention along the dims of one stage."""

    parts = ("query", "key", "value", "output")
    #: Do queries and keys carry their places (RoPE)?
    turned = False

    def forward(self, x: Stream, layout: Layout, stage: Stage, valid: Lengths) -> Stream:
        inside = self.strategy.inside(layout, stage)
        h = self.enter(x, layout, inside)
        width, maps = self.strategy.geometry.channel, (self.query, self.key, self.value)
        projected = self.strategy.project(h, inside, *(part.pair() for part in maps))
        q, k, v = (t.unflatten(-1, (-1, width)) for t in projected)
        if self.turned:
            q, k = (turn(t, stage, self.strategy, inside) for t in (q, k))
        stage = padded(stage, valid, self.strategy.geometry.dims)
        out = self.strategy.attend(q, k, v, inside, stage)
        out = F.linear(out.flatten(-2), self.output.weight)
        return self.leave(x, out, self.output, layout, inside)


class CrossAttention(Branch):
    """Each token attends to all of the text."""

    parts = ("query", "key", "value", "output")

    def forward(self, x: Stream, layout: Layout, context: Tensor, valid: Lengths) -> Stream:
        h, width = self.enter(x, layout, layout), self.strategy.geometry.channel
        (q,) = self.strategy.project(h, layout, self.query.pair())
        k, v = self.strategy.keys_and_values(context, self.key.pair(), self.value.pair())
        q, k, v = (t.unflatten(-1, (-1, width)) for t in (q, k, v))
        tokens = range(1, q.dim() - 2)
        seen = padded(Stage("context"), valid, self.strategy.text.sizes)
        out = attention(fold(q, tokens), k.transpose(1, 2), v.transpose(1, 2), seen)
        out = F.linear(unfold(out, tokens, q.shape).flatten(-2), self.output.weight)
        return self.leave(x, out, self.output, layout, layout)


class MLP(Branch):
    """Two linear maps with a GELU between them."""

    parts = ("up", "down")
    #: Compute the hidden units again in the backward rather than keep them?
    selective = False

    def forward(self, x: Stream, layout: Layout) -> Stream:
        h = self.enter(x, layout, layout)
        if self.selective:
            h = self.strategy.enter(h, layout)
            h = recompute(self.hidden, h, use_reentrant=False, preserve_rng_state=False)
        else:
            h = self.amount(*self.strategy.project(h, layout, self.up.pair()))
        return self.leave(x, h, self.down, layout, layout)

    def hidden(self, h: Tensor) -> Tensor:
        """The hidden units, and what they amount to before the bias."""
        return self.amount(F.linear(h, *self.up.pair()))

    def amount(self, h: Tensor) -> Tensor:
        """What hidden units amount to before the bias."""
        return F.linear(F.gelu(h), self.down.weight)


_KINDS = {"attention": Attention, "cross": CrossAttention, "mlp": MLP}


class Transformer(nn.Module):
    """One rank's part of the model that ``spec`` describes, under one strategy.

    Parameters
    ----------
    spec : TransformerSpec
        The whole model.
    strategy : Strategy
        Bound to this rank's `Comm`.
    weights : dict of str to Tensor
        Logical weights, as `initial_weights` makes them; the strategy takes its part.
    checkpoint : {"none", "block", "selective"}
        What the backward computes again rather than keep: nothing; each block, which is an
        attention and the MLP after it, and so all that it sends; or the MLPs' hidden units only,
        for which nothing is sent.
    switch : {"inside", "outside"}
        Where re-laying the residual stream ahead of an attention is: in the block, and so done
        again, too, or before it.
    """

    def __init__(
        self,
        spec: TransformerSpec,
        strategy: Strategy,
        weights: Mapping[str, Tensor],
        checkpoint: str = "none",
        switch: str = "inside",
    ):
        super().__init__()
        self.spec, self.strategy = spec, strategy
        self.checkpoint, self.switch = checkpoint, switch
        part = strategy.shard_weights(weights)
        self.places = list(spec.places())
        self.branches = nn.ModuleList(
            _KINDS[place.kind](part, place.name, strategy) for place in self.places
        )
        for branch in self.branches:
            branch.selective = checkpoint == "selective"
            branch.turned = spec.positions == "rope"
        tables = {d: nn.Parameter(part[f"positions.{d}"]) for d in spec.dims if _learned(spec)}
        self.positions = nn.ParameterDict(tables)

    def forward(
        self, x: Stream, context: Tensor | None = None, valid: Lengths | None = None
    ) -> tuple[Tensor, Layout]:
        """Run all layers on this rank's part of the input, laid out as ``strategy.start``.

        ``context`` is its part of the texts of its samples ``[B, L, M]``, laid out as
        ``strategy.text``, where the spec has any; ``valid`` is how long its samples are.
        """
        valid = Lengths({}) if valid is None else valid
        layout, upcoming = self.strategy.start, list(self.spec.stages) * self.spec.num_layers
        for dim, table in self.positions.items():
            at = places(dim, x.shape[layout.position(dim)], self.strategy, layout)
            x = x + _along(table[at.to(x.device)], layout.position(dim), x.dim())
        for block in self._blocks():
            upcoming.pop(0)
            inside = self.checkpoint == "block" and self.switch == "inside"
            if not inside:
                x, layout = self._arrange(x, layout, block, upcoming)
            arranged = () if not inside else upcoming.copy()
            if self.checkpoint == "block":
                x, layout = self._recomputed(x, layout, block, inside, arranged, context, valid)
            else:
                x, layout = self._run(x, layout, block, False, (), context, valid)
        return x, layout

    def _blocks(self) -> list[list[tuple[Place, nn.Module]]]:
        """Each attention with the MLP that follows it, if one does."""
        blocks = []
        for pair in zip(self.places, self.branches, strict=True):
            if pair[0].stage is None:
                blocks[-1].append(pair)
            else:
                blocks.append([pair])
        return blocks

    def _arrange(self, x, layout, block, upcoming) -> tuple[Tensor, Layout]:
        place = block[0][0]
        self.strategy.comm.at(place.layer, place.index)
        return self.strategy.arrange(x, layout, place.stage, upcoming)

    def _run(self, x, layout, block, arrange, upcoming, context, valid) -> tuple[Tensor, Layout]:
        if arrange:
            x, layout = self._arrange(x, layout, block, upcoming)
        for place, branch in block:
            self.strategy.comm.at(place.layer, place.index)
            given = {"attention": (place.stage, valid), "cross": (context, valid), "mlp": ()}
            x = branch(x, layout, *given[place.kind])
        return x, layout

    def _recomputed(self, *arguments) -> tuple[Tensor, Layout]:
        again = self.strategy.comm.again
        with set_checkpoint_early_stop(False):  # all of the block, whatever is needed of it
            return recompute(
                self._run, *arguments, use_reentrant=False, preserve_rng_state=False,
                context_fn=lambda: (nullcontext(), again()),
            )  # fmt: skip

    def named_weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        """This rank's parameters under the logical names of `initial_weights`."""
        for place, branch in zip(self.places, self.branches, strict=True):
            for part, parameter in branch.named_parameters():
                yield f"{place.name}.{part}", parameter
        for dim, table in self.positions.items():
            yield f"positions.{dim}", table


def _learned(spec: TransformerSpec) -> bool:
    return spec.positions == "learned"


def _along(table: Tensor, dim: int, count: int) -> Tensor:
    """``[n, ...] -> [1, ..., n, ..., 1, ...]``, with n at ``dim`` of ``count`` dims."""
    shape = [1] * count
    shape[dim], shape[-1] = table.shape[0], table.shape[-1]
    return table.view(shape)


def places(dim: str, count: int, strategy: Strategy, layout: Layout) -> Tensor:
    """Where in the whole dim this rank's ``count`` entries stand; padding is at place 0."""
    outside = any(dim == other.dim for other in layout.outer)
    gathered = count == layout.sizes[dim] and layout.order == "contiguous" and not outside
    if gathered or not (dim == layout.split or outside):  # Megatron-SP has gathered it
        return torch.arange(count, device="cpu")
    comm = strategy.along(layout)
    held = list(layout.held(dim, comm.rank, comm.size))
    return torch.tensor(held + [0] * (count - len(held)), device="cpu")


def turn(t: KVHeads, stage: Stage, strategy: Strategy, layout: Layout) -> KVHeads:
    """Turn pairs of channels by an angle that grows with the place, each dim its own channels.

    Source: Su et al. (2021), RoFormer, arXiv:2104.09864; for several dims, axis by axis.
    """
    chunks = []
    for dim, x in zip(stage, t.chunk(len(stage), -1), strict=True):
        half, at = x.shape[-1] // 2, layout.position(dim)
        speeds = 10_000.0 ** (-torch.arange(half, device="cpu", dtype=torch.float64) / half)
        angles = places(dim, t.shape[at], strategy, layout)[:, None] * speeds
        cos, sin = (_along(f(angles).to(t), at, t.dim()) for f in (torch.cos, torch.sin))
        a, b = x.chunk(2, -1)
        chunks += [a * cos - b * sin, b * cos + a * sin]
    return torch.cat(chunks, -1)
