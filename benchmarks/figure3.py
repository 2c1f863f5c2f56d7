"""Fit the three constants of `workbench.published.figure3` and cross-validate them.

    python benchmarks/figure3.py

Prints the constants, the error of each bar, and errors on bars that were not used: each left out
in turn, then all bars of one T, of one number of GPUs, and of one method.
"""

import numpy as np

from workbench.published import BARS, fit, left_out
from workbench.published.figure3 import FITTED, errors, fitted_cluster


def report(name, groups):
    """Print the error on each group of bars when it is left out of the fit."""
    found = np.abs(left_out(groups))
    print(f"left out {name}: mean |error| {np.mean(found):.1%}, worst {np.max(found):.1%}")


def main():
    best = fit()
    print(f"fitted {best}\nstored {FITTED}")
    for bar, error in zip(BARS, errors(BARS, fitted_cluster(best)), strict=True):
        print(f"  {bar}: {error:+.1%}")
    mean = np.mean(np.abs(errors(BARS, fitted_cluster(best))))
    print(f"all used: mean |error| {mean:.1%}")
    report("each bar", [[bar] for bar in BARS])
    for name in ("temporal_length", "sp", "method"):
        values = sorted({getattr(bar, name) for bar in BARS})
        report(f"all bars of each {name}",
               [[b for b in BARS if getattr(b, name) == value] for value in values])  # fmt: skip


if __name__ == "__main__":
    main()
