"""Calibrate this machine, predict steps, and only then run them; say how far off that was.

    python benchmarks/calibration.py

The grid's sizes had no part in the calibration. Each point is the median of its repeats; its noise
floor is the median of |repeat / median - 1|. Points above 10 % are listed and don't count. Then the
same with more ranks than cores, apart. Where there are GPUs they are measured, in bfloat16, on a
block of STDiT-XL/2; `--preset dgx-h200` says beside it what data sheets alone would have said.
"""

import argparse
import statistics
from dataclasses import replace

import torch

import workbench as wb
from workbench.calibration import Point, check, cluster_of, measure, median_error
from workbench.calibration.grid import NOISY
from workbench.units import human_seconds

#: Entries of (time, space), and the width of the model.
SIZES = [(8, 64, 128), (16, 128, 128), (8, 256, 128), (32, 64, 128), (16, 64, 256), (8, 128, 256)]

#: Entries of (time, space) of a block of STDiT-XL/2: lengths that no calibration has.
BLOCKS = [(24, 400), (16, 1024), (80, 400), (48, 1024), (80, 1024), (24, 3600), (128, 576)]


def points(p: int, gpu: bool) -> list[Point]:
    """Every strategy that takes ``p`` ranks, at every size."""
    names = ["single"] if p == 1 else [name for name in wb.STRATEGIES if name != "single"]
    if gpu:
        whole = wb.PRESETS["stdit-xl-2"]
        blocks = [replace(whole, dims={"time": t, "space": s}, num_layers=1) for t, s in BLOCKS]
        return [Point(block, name, p) for block in blocks for name in names]
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
    parser.add_argument("--preset", choices=wb.CLUSTERS, help="forecast of its data sheets, too")
    given = parser.parse_args()
    gpu = torch.cuda.is_available()
    dtype = "bfloat16" if gpu else "float32"
    cluster = cluster_of(measure(dtype=dtype, quick=given.quick))
    figures(cluster)
    counts = sorted({1, cluster.gpus}) if gpu else [p for p in (1, 2) if p <= cluster.gpus]
    grid = [q for p in counts for q in points(p, gpu)]
    rows = check(grid, cluster, dtype=dtype, repeats=given.repeats)
    report(f"as many ranks as there are cores or GPUs, or fewer ({cluster.gpus})", rows)
    if given.preset:
        known = wb.CLUSTERS[given.preset]
        said = [
            wb.predict(q.spec, q.strategy, known, p=q.p, dtype=dtype, gradient_sync="flat")
            for q in grid
        ]
        title = f"the same measurements, and what {given.preset}'s data sheets say"
        report(title, [replace(r, predicted=cost) for r, cost in zip(rows, said, strict=True)])
    if given.oversubscribed and not gpu:
        crowded = cluster_of(measure(given.oversubscribed, quick=given.quick))
        title = f"{given.oversubscribed} ranks on {cluster.gpus} cores: they take turns"
        report(title, check(points(given.oversubscribed, gpu), crowded, repeats=given.repeats))


if __name__ == "__main__":
    main()
