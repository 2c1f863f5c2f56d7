"""On a GPU, where there is one: attention and its blocks, whole steps of several ranks, memory."""

from dataclasses import replace

import pytest
import torch
from cases import SPECS
from test_padding import SPECS as PADDED
from test_padding import variants
from test_positions import MODELS

import workbench as wb
import workbench.rank
from workbench.comm import Comm
from workbench.outcome import compare
from workbench.rank import RankStep, rank_step
from workbench.strategies import STRATEGIES, by_name, choose_shard
from workbench.strategies.attention import attend_block, attention_backward, attention_with_lse
from workbench.strategies.gpu_blocks import fused_kernel

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
    # By the first backward, whose thread has no context yet.
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS"),
]

#: Of the largest number, for what is computed in this dtype.
BOUND = {"float32": 1e-4, "bfloat16": 0.03}
#: Queries, keys and values in the whole, not cut into blocks: batch, heads, length, channels.
SHAPE, KV_HEADS = (2, 4, 48, 16), 2
MASKS = {
    "all": (False, None),
    "causal": (True, None),
    "padded": (False, [[True] * 48, [True] * 30 + [False] * 18]),
    "causal and padded": (True, [[True] * 48, [True] * 30 + [False] * 18]),
}


def drawn(dtype):
    g = torch.Generator().manual_seed(0)
    n, h, s, c = SHAPE
    shapes = {"q": h, "k": KV_HEADS, "v": KV_HEADS, "grad": h}
    exact = [torch.randn(n, heads, s, c, generator=g) for heads in shapes.values()]
    return [t.to("cuda", getattr(torch, dtype)) for t in exact]


def truth(q, k, v, grad, seen):
    """Attention written out in float64 on the CPU, and its gradients."""
    q, k, v, grad = (t.detach().cpu().double() for t in (q, k, v, grad))
    leaves = [t.requires_grad_() for t in (q, k, v)]
    wide = [t.repeat_interleave(SHAPE[1] // KV_HEADS, 1) for t in (k, v)]
    scores = (q @ wide[0].mT / q.shape[3] ** 0.5).masked_fill(~seen, -torch.inf)
    out = scores.softmax(-1) @ wide[1]
    return [out, *torch.autograd.grad(out, leaves, grad)]


def near(found, expected, dtype):
    for a, b in zip(found, expected, strict=True):
        assert (a.cpu().double() - b).abs().max() <= BOUND[dtype] * b.abs().max()


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("name", MASKS)
def test_attention_is_what_it_says(name, dtype):
    causal, real = MASKS[name]
    q, k, v, grad = drawn(dtype)
    mask = None if real is None else torch.tensor(real)[:, None, None]
    pairs = torch.ones(SHAPE[2], SHAPE[2], dtype=torch.bool)
    seen = (pairs.tril() if causal else pairs) & (True if mask is None else mask)
    leaves = [t.requires_grad_() for t in (q, k, v)]
    out = attend_block(*leaves, causal, mask)[0]
    near([out.detach(), *torch.autograd.grad(out, leaves, grad)], truth(q, k, v, grad, seen), dtype)


@pytest.mark.parametrize(("dtype", "fused"), [("float32", "efficient"), ("bfloat16", "flash")])
def test_which_kernel_takes_a_block(dtype, fused):
    """Those of GPUs since 2020; what they don't take is written out."""
    q = drawn(dtype)[0]
    narrow, many = q[..., :6].contiguous(), q.new_zeros(2**16, 4, 1, 16)
    assert fused_kernel(q, q, q, True, None) == fused_kernel(q, q, q, False, None) == fused
    assert fused_kernel(q[:, :, 1:], q, q, True, None) == ""
    assert all(fused_kernel(t, t, t, False, None) == "" for t in (narrow, many))
    assert attention_with_lse(many, many, many)[0].abs().max() == 0


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("causal", [False, True])
def test_a_query_that_sees_nothing_gets_0(dtype, causal):
    q, k, v, grad = drawn(dtype)
    mask = torch.tensor([[True] * 48, [False] * 48])[:, None, None]
    leaves = [t.requires_grad_() for t in (q, k, v)]
    out = attend_block(*leaves, causal, mask)[0]
    gradients = torch.autograd.grad(out, leaves, grad)
    assert all(t[1].abs().max() == 0 for t in (out, *gradients))
    assert all(t.isfinite().all() for t in (out, *gradients))


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("padded", [False, True])
def test_two_blocks_are_the_whole(dtype, padded):
    """As a ring has them: each with its log-sum-exp, and gradients from that of all."""
    q, k, v, grad = drawn(dtype)
    seen = torch.ones(2, 1, 1, 48, dtype=torch.bool)
    seen[1, ..., 30:] = not padded
    blocks = [(k[:, :, i : i + 24], v[:, :, i : i + 24]) for i in (0, 24)]
    masks = [seen[..., i : i + 24] if padded else None for i in (0, 24)]
    parts = [attention_with_lse(q, *b, False, m) for b, m in zip(blocks, masks, strict=True)]
    lse = torch.stack([one.float() for _, one in parts]).logsumexp(0)
    out = sum(o * (one.float() - lse).exp()[..., None] for o, one in parts).to(q.dtype)
    gradients = [
        attention_backward(grad, q, *b, out, lse, False, m)
        for b, m in zip(blocks, masks, strict=True)
    ]
    dq, dk, dv = zip(*gradients, strict=True)
    found = [out, sum(dq), torch.cat(dk, 2), torch.cat(dv, 2)]
    near(found, truth(q, k, v, grad, seen.expand(2, 1, 48, 48)), dtype)


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("channels", [6, 16])
def test_a_causal_block_is_the_whole(dtype, channels):
    """Channels of whole 16 bytes have kernels of their own."""
    q, k, v, grad = (t[..., :channels].contiguous() for t in drawn(dtype))
    out, lse = attention_with_lse(q, k, v, True)
    found = [out, *attention_backward(grad, q, k, v, out, lse, True)]
    near(found, truth(q, k, v, grad, torch.ones(48, 48, dtype=torch.bool).tril()), dtype)


class ByWayOfTheCPU(Comm):
    """Collectives of ranks that share a GPU, which NCCL refuses."""

    def _all_to_all_into(self, received, send):
        arrived = torch.empty_like(send, device="cpu")
        super()._all_to_all_into(arrived, send.cpu())
        received.copy_(arrived)

    def _all_summed(self, x):
        whole = x.cpu()
        super()._all_summed(whole)
        x.copy_(whole)

    def _gathered(self, whole, part):
        gathered = whole.cpu()
        super()._gathered(gathered, part.cpu())
        whole.copy_(gathered)

    def _started(self, pairs):
        there = [each._replace(sent=each.sent.cpu(), received=each.received.cpu())
                 for each in pairs]  # fmt: skip
        return [Arriving(super()._started(there), pairs, there)]


class Arriving:
    """What is on its way to the CPU, and then to the GPU."""

    def __init__(self, requests, pairs, there):
        self.requests, self.pairs, self.there = requests, pairs, there

    def wait(self):
        for request in self.requests:
            request.wait()
        for pair, done in zip(self.pairs, self.there, strict=True):
            pair.received.copy_(done.received)


#: A causal ring without padding, whose rows the fused kernels take.
FUSED = wb.TransformerSpec(dims={"t": 24}, stages=(wb.Stage("t", causal=True),), d_model=64,
                           num_heads=4, num_kv_heads=2, num_layers=2)  # fmt: skip


@pytest.mark.parametrize(
    ("p", "dtype", "models"),
    [
        (2, "float32", [FUSED, SPECS[2], SPECS[6], *PADDED[::2], *MODELS[-2:]]),
        (3, "float32", [FUSED, SPECS[2], SPECS[6], *PADDED[::2], *MODELS[-2:]]),
        (3, "bfloat16", [FUSED]),
    ],
)
def test_steps_of_several_ranks_are_those_of_one_device(p, dtype, models):
    """Against the CPU's step of one rank."""
    if torch.cuda.device_count() >= p:
        pytest.skip("each rank would have a GPU of its own, and NCCL")
    made = [
        (model, cls := by_name(name), choose_shard(cls, model, p, model.branches, shard))
        for model, name, shard in variants(p, models)
    ]

    def on_rank(rank, comm):
        comm.__class__ = ByWayOfTheCPU
        workbench.rank.local_device = lambda: torch.device("cuda", 0)
        return [
            rank_step(comm, model, cls, dtype, 0, shard) | {"log": list(comm.log)}
            for model, cls, shard in made
        ]

    ranks = wb.run_local(on_rank, p)
    assert {cls.name for _, cls, _ in made} == set(STRATEGIES)
    bound = 2 * BOUND[dtype]  # both sides round
    for i, (model, cls, shard) in enumerate(made):
        options = {"dtype": dtype, "seed": 0, "shard": shard}
        step = compare([results[i] for results in ranks], model, cls, options, 0.0)
        assert step.max_error <= bound, (model, cls.name)
        assert step.grad_error <= bound, (model, cls.name)


def test_run_step_takes_the_gpu():
    step = wb.run_step(wb.PRESETS["toy-video"], "single", p=1)
    assert 0 < step.max_error <= BOUND["float32"]  # the one device is the CPU, which rounds else
    assert 0 < step.grad_error <= BOUND["float32"]


@pytest.mark.parametrize("checkpoint", ["none", "selective", "block"])
def test_the_closed_form_is_what_torch_counts_but_for_scratch(checkpoint):
    """Kernels' scratch memory is left out: that of cuBLAS, and of attention's backward."""
    model = replace(wb.PRESETS["stdit-xl-2"], dims={"time": 16, "space": 1024}, num_layers=4)
    said = wb.closed_form_memory(model, "single", p=1, dtype="bfloat16", checkpoint=checkpoint)

    def on_rank(rank, comm):
        single, device = STRATEGIES["single"], torch.device("cuda")
        step = RankStep(comm, model, single, "bfloat16", 0, None, device, checkpoint=checkpoint)
        step.run()
        step.reset()
        torch.cuda.reset_peak_memory_stats()
        step.run()
        return torch.cuda.max_memory_allocated()

    (peak,) = wb.run_local(on_rank, 1)
    assert said.peak_bytes <= peak <= 1.2 * said.peak_bytes
