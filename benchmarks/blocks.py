"""A whole space/time block under each strategy, and what its parts cost.

One launch runs all in turn, round after round. A ratio is the median of the rounds' ratios, with
its 95 % bootstrap interval; below 1, ours is faster. A block is one layer (attention along space,
MLP, attention along time, MLP), forward and backward; the sum of weights' gradients, which does
not depend on how a sequence is cut, is left out.
"""

import argparse
import time
from functools import partial

import numpy as np
import torch
import torch.distributed as dist
from attention import told

import workbench as wb
from workbench.comm import Comm
from workbench.dims import Dims
from workbench.layout import Layout
from workbench.rank import RankStep
from workbench.strategies import select

AGAINST = ("ulysses", "ring", "megatron-sp", "megatron-tp")
#: B1 T16 S256: little computing for each byte that is sent, the more so the narrower.
WIDTHS = {64: 8, 128: 8, 512: 8}


def spec_of(width: int, heads: int) -> wb.TransformerSpec:
    """One layer of B1 T16 S256."""
    return wb.TransformerSpec(
        dims={"time": 16, "space": 256}, stages=("space", "time"), d_model=width,
        num_heads=heads, num_layers=1,
    )  # fmt: skip


def block(step: RankStep) -> list[float]:
    """Seconds of a block's forward, and of it with its backward."""
    for _, leaf in step.leaves():
        leaf.grad = None
    step.world.log.clear()
    dist.barrier()
    started = time.perf_counter()
    y, _ = step.model(step.x)
    forward = time.perf_counter() - started
    y.backward(torch.ones_like(y))
    return [forward, time.perf_counter() - started]


def blocks(rank, comm, count, width, heads):
    """``{strategy: [[forward, with backward], ...]}``, and the longest log."""
    spec, steps = spec_of(width, heads), {}
    for name in ("dsp", *AGAINST):
        shard = "time" if wb.STRATEGIES[name].cuts_sequence else None
        cls = select(name, spec, comm.size)
        steps[name] = RankStep(comm, spec, cls, "float32", 0, shard, torch.device("cpu"))
    seconds, records = {name: [] for name in steps}, {}
    for _ in range(count + 1):  # the first is a warm-up
        for name, step in steps.items():
            seconds[name].append(block(step))
            records[name] = len(comm.log)
    return {name: times[1:] for name, times in seconds.items()}, records


def switches(rank, comm, count, width):
    """Seconds there and back: our switch, one written by hand, and the bare collective alone."""
    sizes = Dims({"batch": 1, "time": 16, "space": 256, "model": width})
    time_cut, space_cut = (Layout(sizes, dim) for dim in ("time", "space"))
    x = torch.randn(time_cut.local_shape(comm.size))
    send, received = x.flatten().clone(), torch.empty(x.numel())

    def ours():
        comm.relayout(comm.relayout(x, time_cut, space_cut), space_cut, time_cut)

    def by_hand():
        traded(traded(x, 2, 1, comm.size), 1, 2, comm.size)

    def bare():
        dist.all_to_all_single(received, send)
        dist.all_to_all_single(received, send)

    seconds = {each.__name__: [] for each in (ours, by_hand, bare)}
    for _ in range(count + 1):
        for each in (ours, by_hand, bare):
            dist.barrier()
            started = time.perf_counter()
            each()
            seconds[each.__name__].append(time.perf_counter() - started)
    return {name: times[1:] for name, times in seconds.items()}


def traded(x, cut, joined, p):
    """A switch without a library: cut dim ``cut`` into p, exchange, join along ``joined``."""
    send = torch.stack(x.chunk(p, cut))
    received = torch.empty_like(send)
    dist.all_to_all_single(received, send)
    return torch.cat(received.unbind(), joined)


def recording(count=20_000) -> float:
    """Seconds to make one record and nothing else."""
    comm, x = Comm(4), torch.empty(4, 4)
    started = time.perf_counter()
    for _ in range(count):
        comm._record("all_to_all", "time->space", x, "forward", comm.site())
    return (time.perf_counter() - started) / count


def slowest(ranks: list) -> np.ndarray:
    """Each round's seconds of the rank that took longest."""
    return np.max([np.array(rank) for rank in ranks], 0)


def main() -> None:
    """Print the tables for each number of ranks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    given = parser.parse_args()
    print(__doc__)
    a_record = recording()
    print(f"one record: {a_record * 1e6:.1f} us")
    for p in given.ranks:
        for width, heads in WIDTHS.items():
            run = partial(blocks, count=given.rounds, width=width, heads=heads)
            ranks = wb.run_local(run, p, timeout_s=1200)
            times = {name: slowest([r[0][name] for r in ranks]) for name in ranks[0][0]}
            print(f"\np = {p}, B1 T16 S256, d_model {width}, float32: DSP's block, forward and "
                  f"with backward: {np.median(times['dsp'], 0).round(5) * 1e3} ms")  # fmt: skip
            for name in AGAINST:
                ratios = times["dsp"] / times[name]
                print(f"{'of ' + name:>16}: {told(ratios[:, 0], 3)}, {told(ratios[:, 1], 3)}")
            share = {n: a_record * k / np.median(times[n], 0)[1] for n, k in ranks[0][1].items()}
            worst = max(share, key=share.get)
            print(f"recording: at most {100 * share[worst]:.2f} % of a block ({worst})")
            ranks = wb.run_local(partial(switches, count=10 * given.rounds, width=width), p)
            times = {name: slowest([rank[name] for rank in ranks]) for name in ranks[0]}
            for name in ("by_hand", "bare"):
                print(f"our switch, of {name}: {told(times['ours'] / times[name], 3)}")
            by_hand = told(times["by_hand"] / times["bare"], 3)
            print(f"one by hand, of the bare collective: {by_hand}")


if __name__ == "__main__":
    main()
