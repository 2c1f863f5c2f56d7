"""A cluster in a box: what each strategy's step takes on slow wires, against what it takes on none.

Two nodes of two ranks. "wire" is what the log says leaves a node's card, over the card's speed:
no step can be faster than it. The ratio is measured over (without wires + wire): below 1, some of
the transfers have hidden behind computing.
"""

import argparse

from tqdm import tqdm

import workbench as wb
from workbench import box
from workbench.units import human_seconds
from workbench.wires import measure, record

SPEC = wb.TransformerSpec(
    dims={"time": 16, "space": 256}, stages=("space", "time"), d_model=128, num_heads=8,
    num_layers=1,
)  # fmt: skip
STRATEGIES = [name for name in wb.STRATEGIES if name != "single"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--gbit", type=float, nargs="+", default=[0.1, 0.3, 1.0])
    parser.add_argument("--record", metavar="MACHINE", help="keep the rows for the notebook")
    given = parser.parse_args()
    print(__doc__)
    if box.missing() is not None:
        print(f"not here: {box.missing()}")
        return
    rows = []
    for gbit in tqdm(given.gbit, desc="speeds"):
        rows += measure(SPEC, STRATEGIES, [gbit], repeats=given.repeats)
    for row in rows:
        print(
            f"{row.gbit_per_s:g} Gbit/s, {row.strategy:>12}: {human_seconds(row.seconds)}; without "
            f"wires {human_seconds(row.local_s)}, wire {human_seconds(row.wire_s)}; ratio "
            f"{row.seconds / row.expected_s:.2f}"
        )
    if given.record:
        record(rows, given.record)


if __name__ == "__main__":
    main()
