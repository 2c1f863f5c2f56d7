"""Calibrate this machine, predict steps, and only then run them; say how far off that was.

    python benchmarks/calibration.py

The grid's sizes had no part in the calibration. Each point is the median of its repeats; its noise
floor is the median of |repeat / median - 1|. Points above 10 % are listed and don't count. Then the
same with more ranks than cores, apart.
"""

import argparse
import statistics

import workbench as wb
from workbench.calibration import Point, check, cluster_of, measure, median_error
from workbench.calibration.grid import NOISY
from workbench.units import human_seconds

#: Entries of (time, space), and the width of the model.
SIZES = [(8, 64, 128), (16, 128, 128), (8, 256, 128), (32, 64, 128), (16, 64, 256), (8, 128, 256)]


def points(p: int) -> list[Point]:
    """Every strategy that takes ``p`` ranks, at every size."""
    names = ["single"] if p == 1 else [name for name in wb.STRATEGIES if name != "single"]
    return [
        Point(
            wb.TransformerSpec(
                dims={"time": time, "space": space}, stages=("space", "time"), d_model=width,
                num_heads=8, num_layers=2,
            ),
            name, p,
        )
        for time, space, width in SIZES
        for name in names
    ]  # fmt: skip


def line_of(row) -> str:
    """One point, and what the prediction is made of."""
    spec, cost = row.point.spec, row.predicted
    parts = (cost.matmul_s, cost.attention_s, cost.elementwise_s, cost.exposed_communication_s,
             cost.relayout_s, cost.overhead_s)  # fmt: skip
    return (
        f"{row.point.strategy:>12} p={row.point.p} {'x'.join(map(str, spec.dims.values())):>7} "
        f"M={spec.d_model}: predicted {human_seconds(cost.seconds):>8}, measured "
        f"{human_seconds(row.median_s):>8}, error {row.error:+5.0%}, noise {row.noise:4.0%}"
        f"{'' if row.counts else ' (not counted)'}; ms of matmul, attention, elementwise, "
        f"communication, copies, overhead: {' '.join(f'{1e3 * part:.1f}' for part in parts)}"
    )


def report(title: str, rows: list) -> None:
    """All points, then the errors of those that count."""
    print(f"\n{title}")
    for row in rows:
        print(line_of(row))
    counting = [row for row in rows if row.counts]
    noise = statistics.median(row.noise for row in rows)
    print(f"noise floor: median {noise:.1%}; {len(rows) - len(counting)} of {len(rows)} points "
          f"above {NOISY:.0%}")  # fmt: skip
    if counting:
        worst = max(counting, key=lambda row: abs(row.error))
        print(f"median |error| {median_error(rows):.1%}; worst: {line_of(worst)}")


def figures(cluster: wb.Cluster) -> None:
    """Every measured figure, with its interval."""
    for row in wb.cluster.figures_of(cluster):
        if row.kind == "measured":
            print(f"{row.name:>32} {row.value:9.3g} {row.unit:8} {row.source}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="calibrate in a few seconds")
    parser.add_argument("--oversubscribed", type=int, default=4, help="ranks; 0: don't")
    given = parser.parse_args()
    cluster = cluster_of(measure(quick=given.quick))
    figures(cluster)
    counts = [p for p in (1, 2) if p <= cluster.gpus]
    rows = check([q for p in counts for q in points(p)], cluster, repeats=given.repeats)
    report(f"as many ranks as cores, or fewer ({cluster.gpus})", rows)
    if given.oversubscribed:
        crowded = cluster_of(measure(given.oversubscribed, quick=given.quick))
        title = f"{given.oversubscribed} ranks on {cluster.gpus} cores: they take turns"
        report(title, check(points(given.oversubscribed), crowded, repeats=given.repeats))


if __name__ == "__main__":
    main()
