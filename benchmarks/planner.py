"""How long predictions take: one, a plan, and a sweep of 10,000 configurations.

python benchmarks/planner.py
"""

import time
from dataclasses import replace

import workbench as wb
from workbench.planner import sweep

MODEL = wb.PRESETS["stdit-xl-2"]
BOX = wb.CLUSTERS["dgx-h100"]
STRATEGIES = ("dsp", "ulysses", "ring", "megatron-sp", "megatron-tp")


def timed(name: str, run) -> None:
    """Print how long ``run`` takes; it returns how many configurations it went through."""
    started = time.perf_counter()
    count = run()
    seconds = time.perf_counter() - started
    print(f"{name:<44}{count:>7} in {seconds:7.3f} s, {1e3 * seconds / count:7.3f} ms each")


def predictions(strategy: str, p: int) -> int:
    """Predict one strategy on models that were never seen before."""
    for frames in range(p, p + 20):
        model = replace(MODEL, dims={"time": frames, "space": 1024})
        wb.predict(model, strategy, BOX, p=p)
    return 20


def whole_sweep() -> int:
    """10 lengths, 5 strategies, 4 numbers of ranks, and 50 networks of other speeds."""
    specs = [replace(MODEL, dims={"time": 16 * i, "space": 1024}) for i in range(1, 11)]
    networks = [replace(BOX, oversubscription=1 + i / 10) for i in range(50)]
    return len(sweep(specs, STRATEGIES, networks, (2, 4, 8, 16)))


def main() -> None:
    """Print the table."""
    timed("the first of all (imports)", lambda: predictions("dsp", 1))
    for strategy in ("dsp", "ring"):
        timed(f"predict, {strategy}, p = 1024", lambda s=strategy: predictions(s, 1024))
    for p in (8, 64):
        timed(f"plan, p = {p}", lambda p=p: len(wb.plan(MODEL, BOX, p=p)))
    timed("sweep", whole_sweep)


if __name__ == "__main__":
    main()
