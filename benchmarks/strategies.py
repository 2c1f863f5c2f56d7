"""How long a training step takes under each strategy, as a ratio to one device.

All are run in turn, several times over, in one go, so that a slow spell of the machine hits them
alike. A ratio is the median of the rounds' ratios; its range is theirs.
"""

import argparse
import statistics

from tqdm import tqdm

import workbench as wb

SPEC = wb.TransformerSpec(
    dims={"time": 16, "space": 256}, stages=("space", "time"), d_model=128, num_heads=8,
    num_layers=2,
)  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    given = parser.parse_args()
    for p in given.ranks:
        seconds = {name: [] for name in wb.STRATEGIES}
        for _ in tqdm(range(given.rounds), desc=f"p = {p}"):
            for name in wb.STRATEGIES:
                ranks = 1 if name == "single" else p
                seconds[name].append(wb.run_step(SPEC, name, p=ranks, repeats=3).seconds)
        print(f"\np = {p}, {dict(SPEC.dims)}, d_model {SPEC.d_model}, {SPEC.num_layers} layers")
        for name, mine in seconds.items():
            ratios = [a / b for a, b in zip(mine, seconds["single"], strict=True)]
            print(
                f"{name:>12}: {statistics.median(mine) * 1e3:6.1f} ms, "
                f"{statistics.median(ratios):.2f} of single ({min(ratios):.2f}-{max(ratios):.2f})"
            )


if __name__ == "__main__":
    main()
