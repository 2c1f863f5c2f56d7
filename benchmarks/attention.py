"""Sequence-parallel attention against what one would write by hand or take from torch.

In one launch all implementations take turns, round after round, and each is held against its peer
in the same round: a ratio is the median of the rounds' ratios, with its 95 % bootstrap interval.
Below 1 is faster than the peer. The peers are written here, with nothing of the library. All get
tensors with tokens first, as a model's projections make them; others get the transposed view.

The ring is also held against the same ring that sends nothing (its values then mean nothing), and
against one device's attention over the whole sequence, divided by the cores that the ranks use.
"""

import argparse
import os
import time
from functools import partial
from itertools import product
from operator import attrgetter

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed import distributed_c10d as c10d
from torch.distributed.tensor.experimental._context_parallel import _attention as template

import workbench as wb
from workbench.comm import Comm
from workbench.geometry import Geometry
from workbench.strategies import select

HEADS, CHANNEL, LENGTH = 8, 64, 2048
KERNEL = "_scaled_dot_product_flash_attention_for_cpu"
#: Each of ours with its options, and the peer that it is held against.
OURS = {
    "ulysses": ("ulysses", {}, "plain all-to-all"),
    "ulysses, packed": ("ulysses", {"packed": True}, "plain all-to-all, fused"),
    "ring": ("ring", {}, "plain ring"),
    "ring, zigzag": ("ring", {"order": "zigzag"}, "torch's ring template"),
    "all-gather": ("ring", {"transfer": "all-gather"}, "plain all-gather"),
}


def kernel(ending=""):
    """The CPU's attention; looked up here, since an op does not travel to other processes."""
    return attrgetter(f"ops.aten.{KERNEL}{ending}")(torch)


class Exchange(torch.autograd.Function):
    """A bare all_to_all_single, there and back."""

    @staticmethod
    def forward(ctx, x):
        out = torch.empty_like(x)
        dist.all_to_all_single(out, x)
        return out

    @staticmethod
    def backward(ctx, grad):
        grad = grad.contiguous()  # before empty_like, which would keep its strides
        out = torch.empty_like(grad)
        dist.all_to_all_single(out, grad)
        return out


def to_heads(x, p):  # [n, H, S/p, C] -> [n, H/p, S, C]
    n, h, s, c = x.shape
    x = Exchange.apply(x.view(n, p, h // p, s, c).transpose(0, 1).contiguous())
    return x.permute(1, 2, 0, 3, 4).reshape(n, h // p, p * s, c)


def to_tokens(x, p):
    n, h, s, c = x.shape
    x = Exchange.apply(x.view(n, h, p, s // p, c).permute(2, 0, 1, 3, 4).contiguous())
    return x.transpose(0, 1).reshape(n, h * p, s // p, c)


def plain_ulysses(q, k, v, causal):
    p = dist.get_world_size()
    q, k, v = (to_heads(t, p) for t in (q, k, v))
    return to_tokens(F.scaled_dot_product_attention(q, k, v, is_causal=causal), p)


def fused_ulysses(q, k, v, causal):
    p = dist.get_world_size()
    q, k, v = to_heads(torch.cat([q, k, v]), p).chunk(3)
    return to_tokens(F.scaled_dot_product_attention(q, k, v, is_causal=causal), p)


def shift(*tensors):
    rank, p, received = dist.get_rank(), dist.get_world_size(), []
    ops = []
    for t in tensors:
        received.append(torch.empty_like(t))
        ops += [dist.P2POp(dist.isend, t, (rank + 1) % p)]
        ops += [dist.P2POp(dist.irecv, received[-1], (rank - 1) % p)]
    for request in dist.batch_isend_irecv(ops):
        request.wait()
    return received


class PlainRing(torch.autograd.Function):
    """Send, wait, compute, merge; contiguous parts."""

    @staticmethod
    def forward(ctx, q, k, v, causal):
        rank, p = dist.get_rank(), dist.get_world_size()
        own = k, v = k.contiguous(), v.contiguous()
        ctx.causal = causal
        out = lse = None
        for hop in range(p):
            k, v = shift(k, v) if hop else (k, v)
            if causal and hop > rank:
                continue
            block, block_lse = kernel()(q, k, v, 0.0, causal and hop == 0)
            block, block_lse = block.float(), block_lse.unsqueeze(-1)
            if out is None:
                out, lse = block, block_lse
            else:
                out = out - torch.sigmoid(block_lse - lse) * (out - block)
                lse = torch.logaddexp(lse, block_lse)
        ctx.save_for_backward(q, *own, out.to(q.dtype), lse.squeeze(-1))
        return out.to(q.dtype)

    @staticmethod
    def backward(ctx, grad):
        q, k, v, out, lse = ctx.saved_tensors
        rank, p = dist.get_rank(), dist.get_world_size()
        dq, dk, dv = (torch.zeros_like(t, dtype=torch.float32) for t in (q, k, v))
        for hop in range(p):
            k, v, dk, dv = shift(k, v, dk, dv) if hop else (k, v, dk, dv)
            if not (ctx.causal and hop > rank):
                first = ctx.causal and hop == 0
                parts = kernel("_backward")(grad, q, k, v, out, lse, 0.0, first)
                for total, part in zip((dq, dk, dv), parts, strict=True):
                    total.add_(part)
        dk, dv = shift(dk, dv)
        return dq.to(q.dtype), dk.to(q.dtype), dv.to(q.dtype), None


class Template(torch.autograd.Function):
    """torch's own ring template, balanced where causal, with the CPU's kernel."""

    @staticmethod
    def forward(ctx, q, k, v, causal):
        template._cp_options.enable_load_balance = causal
        op = partial(template._templated_ring_attention, c10d._get_default_group(), 2, kernel())
        out, lse, *_ = op(q, k, v, is_causal=causal)
        ctx.causal = causal
        ctx.save_for_backward(q, k, v, out, lse)
        return out

    @staticmethod
    def backward(ctx, grad):
        q, k, v, out, lse = ctx.saved_tensors
        names = {"grad_out_name": "grad_out", "grad_out": grad.contiguous()}
        parts = template._templated_ring_attention_backward(
            c10d._get_default_group(), 2, kernel("_backward"), **names, query=q, key=k, value=v,
            out=out, logsumexp=lse, is_causal=ctx.causal, dropout_p=0.0,
        )  # fmt: skip
        return (*parts[:3], None)


class Gather(torch.autograd.Function):
    """A bare all-gather along the tokens, and back a reduce-scatter (all-to-all and sum)."""

    @staticmethod
    def forward(ctx, x):
        p = dist.get_world_size()
        out = x.new_empty((p * x.shape[0], *x.shape[1:]))
        dist.all_gather_single(out, x.contiguous())
        return out.unflatten(0, (p, -1)).movedim(0, 2).flatten(2, 3)

    @staticmethod
    def backward(ctx, grad):
        p = dist.get_world_size()
        send = grad.unflatten(2, (p, -1)).movedim(2, 0).contiguous()
        out = torch.empty_like(send)
        dist.all_to_all_single(out, send)
        return out.sum(0)


def alone(q, k, v, causal):
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


def plain_gather(q, k, v, causal):
    k, v = Gather.apply(torch.cat([k, v])).chunk(2)
    if not causal:
        return F.scaled_dot_product_attention(q, k, v)
    start = dist.get_rank() * q.shape[2]
    end = start + q.shape[2]
    mask = torch.ones(q.shape[2], end, dtype=torch.bool).tril(start)
    return F.scaled_dot_product_attention(q, k[:, :, :end], v[:, :, :end], mask)


SILENT, ALONE = "the same without transfers", "one device"
PEERS = {
    "plain all-to-all": plain_ulysses,
    "plain all-to-all, fused": fused_ulysses,
    "plain ring": PlainRing.apply,
    "torch's ring template": Template.apply,
    "plain all-gather": plain_gather,
}


def tokens_first(attend):
    """A function of ``[B, H, S/p, C]`` as one of ``[B, S/p, H, C]``."""

    def run(q, k, v, causal):
        return attend(*(t.transpose(1, 2) for t in (q, k, v)), causal).transpose(1, 2)

    return run


def ours(comm, name, options, causal, length=LENGTH):
    """One strategy's attention as a function of q, k and v ``[B, S/p, H, C]``."""
    stage = wb.Stage("tokens", causal=causal)
    geometry = Geometry(
        dims={"tokens": length}, stages=(stage,), d_model=HEADS * CHANNEL, num_heads=HEADS
    )
    strategy = select(name, geometry, comm.size, **options)(comm, geometry, "tokens")

    def attend(q, k, v, causal):
        comm.log.clear()
        return strategy.attend(q, k, v, strategy.start, stage)

    return attend


def timed(comm, attend, length, dtype, causal) -> list[float]:
    """Seconds of the forward, and of it with the backward; this rank has ``length`` tokens."""
    generator = torch.Generator().manual_seed(comm.rank)
    shape = (1, length, HEADS, CHANNEL)
    parts = [torch.randn(shape, generator=generator, dtype=dtype) for _ in range(4)]
    q, k, v = (part.requires_grad_() for part in parts[:3])
    dist.barrier()
    started = time.perf_counter()
    out = attend(q, k, v, causal).flatten(2)
    forward = time.perf_counter() - started
    out.backward(parts[3].flatten(2))
    return [forward, time.perf_counter() - started]


def take_turns(comm, runs, count, dtype, causal):
    """Each of ``{name: (function, tokens)}`` in turn: ``{name: [[forward, both], ...]}`` [s]."""
    found = {name: [] for name in runs}
    for _ in range(count + 1):  # the first is a warm-up
        for name, (attend, length) in runs.items():
            found[name].append(timed(comm, attend, length, dtype, causal))
    return {name: times[1:] for name, times in found.items()}


def rounds(rank, comm, count, dtype, causal):
    """Ours and the peers that are written here, ``count`` times."""
    length = LENGTH // comm.size
    runs = {name: (tokens_first(attend), length) for name, attend in PEERS.items()}
    for label, (name, options, _) in OURS.items():
        runs[label] = (ours(comm, name, options, causal), length)
    silent = ours(Comm(comm.size, rank), "ring", {}, causal)
    runs[SILENT] = (silent, length)
    runs[ALONE] = (tokens_first(alone), LENGTH * (rank == 0))
    return take_turns(comm, runs, count, dtype, causal)


def told(ratios: np.ndarray, digits: int = 2) -> str:
    """The median ratio and its interval."""
    from scipy.stats import bootstrap  # here, since every rank would wait seconds for it

    interval = bootstrap((ratios,), np.median, n_resamples=2000, rng=0).confidence_interval
    middle, low, high = (f"{x:.{digits}f}" for x in (np.median(ratios), *interval))
    return f"{middle} ({low} to {high})"


def main() -> None:
    """Print a table for each number of ranks, dtype and mask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    given = parser.parse_args()
    print(__doc__)
    for p, name, causal in product(given.ranks, given.dtypes, (False, True)):
        run = partial(rounds, count=given.rounds, dtype=getattr(torch, name), causal=causal)
        ranks = wb.run_local(run, p, timeout_s=1200)
        slowest = {key: np.max([r[key] for r in ranks], 0) for key in ranks[0]}
        print(f"\np = {p}, {name}, {'causal' if causal else 'full'}; forward, with backward")
        for label, (_, _, peer) in OURS.items():
            ratios = slowest[label] / slowest[peer]
            both = np.median(slowest[label], 0) * 1e3
            print(f"{label:>16}: {both[0]:6.1f} ms, {both[1]:6.1f} ms; of {peer}: "
                  f"{told(ratios[:, 0])}, {told(ratios[:, 1])}")  # fmt: skip
        used = min(p, os.cpu_count())
        held = {SILENT: slowest[SILENT], f"{ALONE} / {used}": slowest[ALONE] / used}
        for label, times in held.items():
            ratios = slowest["ring"] / times
            print(f"{'ring':>16}: of {label}: {told(ratios[:, 0])}, {told(ratios[:, 1])}")


if __name__ == "__main__":
    main()
