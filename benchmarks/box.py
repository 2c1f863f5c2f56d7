"""A cluster in a box: what each strategy's step takes on slow wires, against what it takes on none.

Two nodes of two ranks; every speed of the wire is its own launch. "on the wire" is what the log
says leaves a card, over the card's speed: no step can be faster, and its difference from what was
measured is computing and waiting.
"""

import argparse
import statistics

import workbench as wb
from workbench import box
from workbench.launch import run_box
from workbench.rank import rank_step
from workbench.strategies import select
from workbench.units import human_seconds

SPEC = wb.TransformerSpec(
    dims={"time": 16, "space": 256}, stages=("space", "time"), d_model=128, num_heads=8,
    num_layers=1,
)  # fmt: skip
NODES, RANKS_PER_NODE = 2, 2
P = NODES * RANKS_PER_NODE
#: Of what one rank sends by each collective: the part that its node's card carries, for its two
#: ranks together. An exchange goes to 3 peers, 2 of them elsewhere; around a ring of 4 one of the
#: two ranks has its neighbour elsewhere, and so for gloo's all-reduce and all-gather.
CROSSING = {"all_to_all": 2 * 2 / 3, "reduce_scatter": 2 * 2 / 3, "ring_shift": 1.0,
            "all_gather": 1.0, "all_reduce": 1.0}  # fmt: skip


def steps(rank, comm, names, repeats):
    """Each strategy's median seconds, and the bytes that its log puts on a card."""
    found = {}
    for name in names:
        cls = select(name, SPEC, comm.size)
        shard = "time" if cls.cuts_sequence else None
        step = rank_step(comm, SPEC, cls, "float32", 0, shard, repeats)
        crossing = sum(CROSSING[r.kind] * r.sent_bytes for r in comm.log)
        found[name] = statistics.median(step["seconds"]), crossing
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--gbit", type=float, nargs="+", default=[0.1, 1.0])
    given = parser.parse_args()
    print(__doc__)
    if box.missing() is not None:
        print(f"not here: {box.missing()}")
        return
    names = [name for name in wb.STRATEGIES if name != "single"]

    def fn(rank, comm):
        return steps(rank, comm, names, given.repeats)

    free = wb.run_local(fn, P)
    for gbit in given.gbit:
        bandwidth = gbit * 1e9 / 8
        boxed = run_box(fn, nodes=NODES, ranks_per_node=RANKS_PER_NODE, inter_bandwidth=bandwidth)
        print(f"\n{NODES} x {RANKS_PER_NODE} ranks, {gbit:g} Gbit/s a card")
        for name in names:
            seconds, without = (max(rank[name][0] for rank in ranks) for ranks in (boxed, free))
            wire = boxed[0][name][1] / bandwidth
            print(
                f"{name:>12}: {human_seconds(seconds)}; without wires {human_seconds(without)}; on "
                f"the wire {human_seconds(wire)}; (without + wire) / measured "
                f"{(without + wire) / seconds:.2f}"
            )


if __name__ == "__main__":
    main()
