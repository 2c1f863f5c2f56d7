"""What torch.compile gains on the local block, and how long it takes to compile.

One device, one layer (attention along space, MLP, attention along time, MLP), forward and backward,
eager and compiled in turn. A ratio is the median of the rounds' ratios, with its 95 % bootstrap
interval; below 1, compiled is faster. Needs a C++ compiler; nothing else in the project compiles.
"""

import argparse
import shutil
import time
from functools import partial

import numpy as np
import torch
from attention import told
from blocks import spec_of

import workbench as wb
from workbench.rank import RankStep
from workbench.strategies import select

WIDTHS = {128: 8, 512: 8}


def step_s(run, x) -> float:
    """Seconds of a forward and backward."""
    started = time.perf_counter()
    y, _ = run(x)
    y.backward(torch.ones_like(y))
    return time.perf_counter() - started


def compare(rank, comm, count, width, heads):
    """Seconds to compile, and of each round eager and compiled."""
    spec = spec_of(width, heads)
    cls = select("single", spec, 1)
    step = RankStep(comm, spec, cls, "float32", 0, None, torch.device("cpu"))
    compiled = torch.compile(step.model)
    first = step_s(compiled, step.x)
    runs = (step.model, compiled)
    seconds = [[step_s(run, step.x) for run in runs] for _ in range(count + 1)]
    return first, seconds[1:]


def main() -> None:
    """Print a line for each width."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    given = parser.parse_args()
    print(__doc__)
    if not (shutil.which("g++") or shutil.which("clang++")):
        print("no C++ compiler here: nothing is measured")
        return
    for width, heads in WIDTHS.items():
        run = partial(compare, count=given.rounds, width=width, heads=heads)
        ((first, seconds),) = wb.run_local(run, 1, timeout_s=1200)
        eager, compiled = np.array(seconds).T
        print(
            f"d_model {width}: {np.median(eager) * 1e3:.1f} ms eager, compiled of it "
            f"{told(compiled / eager, 3)}; the first call took {first:.1f} s"
        )


if __name__ == "__main__":
    main()
