"""Our attention against published libraries: ``make bench-peers``.

Each peer first runs alone, in a launch of its own, and is compared with one device: output and
gradients. Then all that ran take turns in one launch, round after round, as in
``benchmarks/attention.py``. A ratio is ours to the fastest correct peer of its kind: the median of
the rounds' ratios with its 95 % bootstrap interval; below 1 we are faster. All get tokens-first
tensors and end with one row a token, as a model's projections make and take them; what wants heads
first gets the transposed view, as its users' models hand it over.
"""

import argparse
import importlib.metadata
import logging
import pathlib
from functools import partial
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from attention import CHANNEL, HEADS, LENGTH, ours, take_turns, tokens_first, told

import workbench as wb
from peers.adapters import Peer, peers
from workbench.failure import RankError

NEEDS = ["axolotl-ringmaster", "deepspeed", "diffusers", "yunchang"]
#: Ours: the strategy with its options, its kind where causal, and the order of its tokens.
OURS = {
    "ulysses": ("ulysses", {}, "ulysses", "contiguous"),
    "ulysses, packed": ("ulysses", {"packed": True}, "ulysses", "contiguous"),
    "ring": ("ring", {}, "ring", "contiguous"),
    "ring, zigzag": ("ring", {"order": "zigzag"}, "balanced", "zigzag"),
}
#: Checks need no long sequence: this many tokens at most.
CHECKED_LENGTH = 512
#: Largest error that is rounding, as a part of the largest entry of the right answer.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


def everyone(comm, causal, length, checkout):
    """Ours and the peers, each as a `Peer`."""
    mine = {}
    for label, (name, options, kind, order) in OURS.items():
        make = lambda p, name=name, options=options: ours(comm, name, options, causal, length)
        mine[label] = Peer(kind if causal or kind == "ulysses" else "ring", make, False, order)
    return mine | peers(causal, checkout)


def tokens(order, rank, p, length):
    """The places in the sequence that one rank holds."""
    places = torch.arange(length)
    if order == "striped":
        return places[rank::p]
    if order == "contiguous":
        return places.chunk(p)[rank]
    chunks = places.chunk(2 * p)
    return torch.cat([chunks[rank], chunks[2 * p - 1 - rank]])


def error(comm, peer, attend, dtype, causal, length):
    """The largest error of output and gradients against one device in float64, relative."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, HEADS, length, CHANNEL)
    whole = [torch.randn(shape, generator=generator).to(dtype) for _ in range(4)]
    exact = [t.double().requires_grad_() for t in whole]
    out = F.scaled_dot_product_attention(*exact[:3], is_causal=causal)
    right = [out, *torch.autograd.grad(out, exact[:3], exact[3])]
    places = tokens(peer.order, comm.rank, comm.size, length)
    q, k, v, grad = (t[:, :, places].transpose(1, 2).contiguous() for t in whole)
    q, k, v = (t.requires_grad_() for t in (q, k, v))
    out = attend(q, k, v, causal)
    out.backward(grad)
    out = out.detach()
    right[0] = right[0].detach()
    return max(
        float((got.transpose(1, 2) - want[:, :, places]).abs().max() / want.abs().max())
        for got, want in zip((out, q.grad, k.grad, v.grad), right, strict=True)
    )


def attention_of(peer, p):
    """It as a function of tokens-first tensors."""
    attend = peer.make(p)
    return tokens_first(attend) if peer.heads_first else attend


def check(rank, comm, name, cases, length, checkout):
    """One peer alone: its error in each case, or why it did not run; ends where it fails."""
    logging.disable(logging.WARNING)
    found = []
    try:
        for dtype, causal in cases:
            peer = everyone(comm, causal, length, checkout)[name]
            found.append(error(comm, peer, attention_of(peer, comm.size), dtype, causal, length))
    except Exception as reason:  # whatever a peer raises is what the table says
        lines = str(reason).strip().splitlines() or [""]
        found.append(f"{type(reason).__name__}: {lines[0]}")
    return found


def checked(name, p, cases, length, checkout):
    """``{case: error or reason}`` of one peer; a failure may spoil its launch, so it ends it."""
    found = []
    while len(found) < len(cases):
        left = cases[len(found) :]
        run = partial(check, name=name, cases=left, length=length, checkout=checkout)
        try:
            ranks = wb.run_local(run, p)
        except (RankError, TimeoutError) as reason:
            ranks = [[str(reason).splitlines()[0]]]
        for verdicts in zip(*ranks, strict=False):
            reasons = [verdict for verdict in verdicts if isinstance(verdict, str)]
            found.append(reasons[0] if reasons else float(np.max(verdicts)))
    return dict(zip(cases, found, strict=True))


def race(rank, comm, names, count, dtype, causal, length, checkout):
    """All that ran, in turns."""
    logging.disable(logging.WARNING)
    runs = {}
    for name, peer in everyone(comm, causal, length, checkout).items():
        if name in names:
            runs[name] = (attention_of(peer, comm.size), length // comm.size)
    return take_turns(comm, runs, count, dtype, causal)


def report(all_peers, verdicts, times, dtype):
    """One table: every peer with its verdict, then ours against the fastest correct one."""
    right = {n for n, e in verdicts.items() if not isinstance(e, str) and e <= TOLERANCE[dtype]}
    for name, found in verdicts.items():
        if isinstance(found, str):
            print(f"{name:>32}: does not run: {found}")
            continue
        both = np.median(times[name], 0) * 1e3
        verdict = f"correct ({found:.0e})" if name in right else f"WRONG (error {found:.1e})"
        kind = all_peers[name].kind
        print(f"{name:>32}: {both[0]:7.1f} ms, {both[1]:7.1f} ms; {kind}, {verdict}")
    for label in OURS:
        kind = all_peers[label].kind
        rivals = [n for n in right if n not in OURS and all_peers[n].kind == kind]
        for column, what in enumerate(["forward", "with backward"]):
            best = min(rivals, key=lambda n: np.median(times[n], 0)[column])
            ratios = times[label][:, column] / times[best][:, column]
            print(f"{label:>32}: {what} {told(ratios)} of {best}")


def compare(p, dtypes, count, length, checkout):
    """Check every peer on ``p`` ranks, then race and report dtype by dtype, mask by mask."""
    of_mask = {causal: everyone(None, causal, length, checkout) for causal in (False, True)}
    verdicts = {}
    for name in of_mask[True]:  # it has the most
        cases = [case for case in product(dtypes, of_mask) if name in of_mask[case[1]]]
        verdicts[name] = checked(name, p, cases, min(length, CHECKED_LENGTH), checkout)
    for case in product(dtypes, of_mask):
        dtype, causal = case
        found = {name: verdict[case] for name, verdict in verdicts.items() if case in verdict}
        ran = [name for name, verdict in found.items() if not isinstance(verdict, str)]
        run = partial(race, names=ran, count=count, dtype=dtype, causal=causal, length=length,
                      checkout=checkout)  # fmt: skip
        ranks = wb.run_local(run, p, timeout_s=7200)
        times = {name: np.max([rank[name] for rank in ranks], 0) for name in ran}
        print(f"\np = {p}, {str(dtype)[6:]}, {'causal' if causal else 'full'}; "
              "forward, with backward")  # fmt: skip
        report(of_mask[causal], found, times, dtype)


def main() -> None:
    """Check, race and report for each number of ranks, mask and dtype."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--length", type=int, default=LENGTH, help="tokens of the sequence")
    parser.add_argument("--videosys", type=pathlib.Path, help="a checkout of VideoSys, to join")
    given = parser.parse_args()
    try:
        versions = [f"{name} {importlib.metadata.version(name)}" for name in NEEDS]
    except importlib.metadata.PackageNotFoundError as missing:
        parser.exit(0, f"Skipped: {missing.name} is not installed; `make bench-peers` has it.\n")
    print(__doc__, ", ".join(versions), sep="\n")
    dtypes = [getattr(torch, name) for name in given.dtypes]
    for p in given.ranks:
        compare(p, dtypes, given.rounds, given.length, given.videosys)


if __name__ == "__main__":
    main()
