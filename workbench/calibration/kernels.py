"""How fast a rank computes and copies: kernels of the sizes that steps have, timed one by one.

Each is a short chain as in a step: forward and backward, into new memory, and what it makes stays
alive until the chain is done. Its work is counted as `workbench.work` counts it.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from workbench.comm import Comm
from workbench.launch import local_device
from workbench.rank import RankStep
from workbench.strategies import Strategy
from workbench.strategies.attention import attend_block
from workbench.transformer import TransformerSpec
from workbench.work import kernels

aten = torch.ops.aten
#: Products of an attention, forward and backward.
#: Source: Dao et al. (2022), FlashAttention, arXiv:2205.14135: two and five.
PRODUCTS = 7


class Chain(NamedTuple):
    """Kernels of one kind: ``work`` is what they do, in flops, bytes or launches; ``run`` does it.

    Several chains of one kind differ in size. ``parts`` alike make up the work and its time.
    """

    kind: str
    work: float
    run: Callable[[], object]
    parts: int = 1


class Sizes(NamedTuple):
    """How much is measured: repeats, and the sizes of each kind.

    ``transfers`` are the repeats of collectives, which differ more. ``products`` are tokens and
    width of a linear map; ``attentions`` groups, heads, length and channels; ``streams`` elements
    of an activation; ``layers`` of a model of next to no size; ``messages`` bytes that a rank hands
    over to a collective.
    """

    repeats: int
    transfers: int
    products: Sequence[tuple[int, int]]
    attentions: Sequence[tuple[int, int, int, int]]
    streams: Sequence[int]
    layers: Sequence[int]
    messages: Sequence[int]

    def count(self, p: int) -> int:
        """How many rounds are made on one rank, and then on ``p``."""
        alone = together = self.repeats + 1
        return alone + (p > 1) * (together + self.transfers + 1 + 1)


#: Source: steps of 0.1 to 1 s on one core of a CPU are made of such kernels.
USUAL = Sizes(
    repeats=9,
    transfers=18,
    products=((512, 128), (2048, 128), (1024, 256), (2048, 256)),
    attentions=(
        (64, 8, 16, 16), (32, 8, 64, 16), (8, 8, 256, 16), (64, 8, 32, 32), (8, 8, 128, 32),
        (4, 8, 512, 32),
    ),
    streams=(2**15, 2**17, 2**19),
    layers=(1, 2, 4),
    messages=tuple(2**k for k in range(12, 23, 2)),
)  # fmt: skip
#: Enough to see that it works.
QUICK = Sizes(
    repeats=3, transfers=3, products=((512, 64), (1024, 64)),
    attentions=((16, 4, 16, 16), (4, 4, 128, 16)),
    streams=(2**14, 2**17), layers=(1, 2), messages=(2**12, 2**17, 2**22),
)  # fmt: skip


def chains(sizes: Sizes, dtype: str) -> Iterator[Chain]:
    """Yield everything that is to be timed on a rank without communicating."""
    device, kind = local_device(), getattr(torch, dtype)
    make = _Maker(kind, device)
    for tokens, width in sizes.products:
        yield make.products(tokens, width)
    for shape in sizes.attentions:
        yield make.attention(*shape)
    for elements in sizes.streams:
        yield make.elementwise(elements)
        yield make.copies(elements)
    for layers in sizes.layers:
        yield launches(layers, dtype, device)


def timed(
    chain_list: Sequence[Chain], repeats: int, fence: Callable[[], None], tick: Callable[[], None]
) -> list[list[float]]:
    """Seconds of each chain's repeats [s], after one that warms up; ``fence`` runs ahead of each.

    All chains are run in turn, round after round, so that a slow spell of the machine is no single
    chain's. ``tick`` is called after each round.
    """
    found: list[list[float]] = [[] for _ in chain_list]
    for _ in range(repeats + 1):
        for times, chain in zip(found, chain_list, strict=True):
            fence()
            started = time.perf_counter()
            chain.run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times.append((time.perf_counter() - started) / chain.parts)
        tick()
    return [times[1:] for times in found]


class _Maker(NamedTuple):
    """Makes chains of one dtype on one device."""

    dtype: torch.dtype
    device: torch.device

    def _new(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.device).to(self.dtype)

    def products(self, tokens: int, width: int) -> Chain:
        """A linear map to four times the width and one back, and their gradients."""
        x, up = self._new(tokens, width), self._new(4 * width, width)
        down = self._new(width, 4 * width)

        def run():
            h = x @ up.T
            y = h @ down.T
            dh = y @ down
            return h, y, y.T @ h, dh, dh.T @ x, dh @ up

        return Chain("matmul", 6 * 2 * tokens * 4 * width**2, run)

    def attention(self, groups: int, heads: int, length: int, channels: int) -> Chain:
        """Fused attention and its gradients, by query: 2 products forward and 5 backward."""
        shape = groups, heads, length, channels
        q, k, v = (self._new(*shape).requires_grad_() for _ in range(3))
        grad, rows = self._new(*shape), groups * heads * length

        def run():
            out = attend_block(q, k, v)[0]
            return out, torch.autograd.grad(out, (q, k, v), grad)

        return Chain("attention", PRODUCTS * 2 * length * channels, run, rows)

    def elementwise(self, elements: int) -> Chain:
        """What a stage has besides products and attention, in its proportions.

        An attention and an MLP: two norms, biases and residuals, a GELU of hidden units that are
        four times as wide, and their gradients.
        """
        width, ratio = 128, 4
        x, other = self._new(elements // width, width), self._new(elements // width, width)
        hidden, grad = (self._new(elements // width, ratio * width) for _ in range(2))
        weight, bias = self._new(width), self._new(width)

        def around():
            h, mean, spread = aten.native_layer_norm(x, (width,), weight, bias, 1e-5)
            y = x + (h + bias)
            dx = aten.native_layer_norm_backward(
                other, x, (width,), mean, spread, weight, bias, (True, True, True)
            )
            return h, y, dx[0] + other, other.sum(0)

        def run():
            made = around(), aten.gelu(hidden), around()
            back = aten.gelu_backward(grad, hidden)
            return made, back, back.sum(0)

        passes = 2 * (2 + 2 + 3 + 3 + 3 + 1) + ratio * (2 + 3 + 1)
        return Chain("elementwise", passes * elements * x.element_size(), run)

    def copies(self, elements: int) -> Chain:
        """What surrounds an all-to-all of two ranks: into chunks, and out of them again."""
        side = 32
        x = self._new(side, side, elements // side**2)

        def run():
            chunks = x.unflatten(1, (2, side // 2)).movedim(1, 0).contiguous()
            return chunks, chunks.movedim(0, 1).flatten(1, 2).contiguous()

        return Chain("copy", 4 * elements * x.element_size(), run)


def launches(layers: int, dtype: str, device: torch.device) -> Chain:
    """A training step of next to no size: launching its kernels is nearly all that it does."""
    tiny = TransformerSpec(
        dims={"time": 2, "space": 4}, stages=("space", "time"), d_model=16, num_heads=2,
        num_layers=layers,
    )  # fmt: skip
    step = RankStep(Comm(1), tiny, Strategy, dtype, 0, None, device)

    def run():
        step.reset()
        return step.run()

    count = sum(k.count for k in kernels(tiny, Strategy, p=1, dtype=dtype, shard=None))
    return Chain("launch", count, run)
