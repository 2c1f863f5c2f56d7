"""How fast a rank computes and copies: kernels of the sizes that steps have, timed one by one.

Each is a short chain as in a step: forward and backward, into new memory, and what it makes stays
alive until the chain is done. Its work is counted as `workbench.work` counts it. On a GPU a chain
is timed from its first kernel to its last, with all of them in line already: as in a step that is
large enough for launching to keep ahead.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from workbench.cluster import Figure
from workbench.comm import Comm
from workbench.launch import local_device
from workbench.rank import RankStep, timed_run
from workbench.strategies import Strategy
from workbench.strategies.attention import attend_block
from workbench.timing import in_tiles
from workbench.transformer import TransformerSpec
from workbench.work import kernels

aten = torch.ops.aten
#: Products of an attention, forward and backward.
#: Source: Dao et al. (2022), FlashAttention, arXiv:2205.14135: two and five.
PRODUCTS = 7
#: How long a GPU is kept busy while a chain is launched, at first and at most [cycles].
_AHEAD_CYCLES, _MOST_CYCLES = 50_000_000, 3_200_000_000
#: Queries and keys of a tile on a GPU; on a CPU none shows.
GPU_TILE = Figure(
    128, "measured", "an H200 with torch 2.11: 129 queries of as many keys take 3 times as long as "
    "128, and 16 as long as 128; benchmarks/gpu_blocks.py prints it",
)  # fmt: skip


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
    of an activation, ``channels`` of its tokens; ``layers`` of a model of next to no size;
    ``messages`` bytes that a rank hands over to a collective.
    """

    repeats: int
    transfers: int
    products: Sequence[tuple[int, int]]
    attentions: Sequence[tuple[int, int, int, int]]
    streams: Sequence[int]
    layers: Sequence[int]
    messages: Sequence[int]
    channels: int = 128

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
#: Source: blocks of DiT-XL/2, of 16 heads with 72 channels (arXiv:2212.09748), on 65,536 tokens.
ON_GPU = Sizes(
    repeats=9,
    transfers=18,
    products=((8192, 1024), (32768, 1024), (16384, 2048), (32768, 2048)),
    attentions=(
        (4096, 16, 16, 72), (1024, 16, 64, 72), (256, 16, 256, 72), (80, 16, 800, 72),
        (20, 16, 3200, 72),
    ),
    streams=(2**22, 2**24, 2**26),
    layers=(1, 2, 4),
    messages=tuple(2**k for k in range(12, 29, 4)),
    channels=1024,
)  # fmt: skip


def sizes_of(quick: bool, gpu: bool) -> Sizes:
    """What is measured; a GPU is so fast that its quick sizes only repeat less."""
    if gpu:
        few = {"repeats": QUICK.repeats, "transfers": QUICK.transfers}
        return ON_GPU._replace(**few) if quick else ON_GPU
    return QUICK if quick else USUAL


def chains(sizes: Sizes, dtype: str) -> Iterator[Chain]:
    """Yield everything that is to be timed on a rank without communicating."""
    device, kind = local_device(), getattr(torch, dtype)
    make = _Maker(kind, device)
    for tokens, width in sizes.products:
        yield make.products(tokens, width)
    for shape in sizes.attentions:
        yield make.attention(*shape)
    for elements in sizes.streams:
        yield make.elementwise(elements, sizes.channels)
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
    took = took_on_gpu if local_device().type == "cuda" else _took
    found: list[list[float]] = [[] for _ in chain_list]
    for _ in range(repeats + 1):
        for times, chain in zip(found, chain_list, strict=True):
            fence()
            times.append(took(chain.run) / chain.parts)
        tick()
    return [times[1:] for times in found]


def _took(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def took_on_gpu(run: Callable[[], object], ahead: int = _AHEAD_CYCLES) -> float:
    """Seconds from the first kernel to the last; anew if one ran before all stood in line."""
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(ahead)
    first.record()
    made = run()  # alive until the last kernel is done
    last.record()
    early = first.query()
    last.synchronize()
    del made
    if early and ahead < _MOST_CYCLES:
        return took_on_gpu(run, 2 * ahead)
    return first.elapsed_time(last) / 1e3


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
        tile = GPU_TILE if self.device.type == "cuda" else 1
        computed = in_tiles(length, tile) ** 2 / length  # keys that each query pays for
        q, k, v = (self._new(*shape).requires_grad_() for _ in range(3))
        grad, rows = self._new(*shape), groups * heads * length

        def run():
            out = attend_block(q, k, v)[0]
            return out, torch.autograd.grad(out, (q, k, v), grad)

        return Chain("attention", PRODUCTS * 2 * computed * channels, run, rows)

    def elementwise(self, elements: int, width: int) -> Chain:
        """What a stage has besides products and attention, in its proportions.

        An attention and an MLP: two norms, biases and residuals, a GELU of hidden units that are
        four times as wide, and their gradients.
        """
        ratio = 4
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


def waits(dtype: str, repeats: int) -> list[float]:
    """What a step on a GPU takes besides its kernels, repeat by repeat [s].

    The time of a step that is so large that launching keeps ahead, less that of the same kernels
    in line: the GPU waits for the first of them.
    """
    large = TransformerSpec(
        dims={"time": 32, "space": 2048}, stages=("space", "time"), d_model=1152, num_heads=16,
        num_layers=1,
    )  # fmt: skip
    step = RankStep(Comm(1), large, Strategy, dtype, 0, None, local_device())

    def run():
        step.reset()
        return step.run()

    run()
    found = []
    for _ in range(repeats):
        step.reset()
        torch.cuda.synchronize()
        found.append(timed_run(step)[0] - took_on_gpu(run))
    return found


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
