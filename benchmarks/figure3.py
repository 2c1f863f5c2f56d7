"""Fit the three constants of `workbench.published.figure3` and cross-validate them.

    python benchmarks/figure3.py

Prints the constants, the error of each bar, and errors on bars that were not used: each left out
in turn, then all bars of one T, and of one number of GPUs.
"""

import numpy as np

from workbench.published.figure3 import BARS, FITTED, Fitted, errors, fitted_cluster

#: Where the search begins: nothing to do with the result. In TFLOP/s, GB/s and s.
START = np.log([300e12, 100e9, 0.3])


def residuals(x, bars):
    """Logarithms of our throughput over the published one."""
    return np.log1p(errors(bars, fitted_cluster(Fitted(*np.exp(x)))))


def fit(bars, steps=20):
    """Least squares of the residuals, by Gauss and Newton on the constants' logarithms."""
    x = START.copy()
    for _ in range(steps):
        at = residuals(x, bars)
        shifts = np.eye(3) * 1e-4
        slopes = np.stack([(residuals(x + shift, bars) - at) / 1e-4 for shift in shifts], 1)
        x = x - np.linalg.lstsq(slopes, at, rcond=None)[0]
    return Fitted(*(float(value) for value in np.exp(x)))


def left_out(name, groups):
    """Print the error on each group of bars when it is left out of the fit."""
    found = []
    for group in groups:
        rest = fit([bar for bar in BARS if bar not in group])
        found += [abs(e) for e in errors(group, fitted_cluster(rest))]
    print(f"left out {name}: mean |error| {np.mean(found):.1%}, worst {np.max(found):.1%}")


def main():
    best = fit(BARS)
    print(f"fitted {best}\nstored {FITTED}")
    for bar, error in zip(BARS, errors(BARS, fitted_cluster(best)), strict=True):
        print(f"  {bar}: {error:+.1%}")
    mean = np.mean(np.abs(errors(BARS, fitted_cluster(best))))
    print(f"all used: mean |error| {mean:.1%}")
    left_out("each bar", [[bar] for bar in BARS])
    for name in ("temporal_length", "sp", "method"):
        values = sorted({getattr(bar, name) for bar in BARS})
        left_out(f"all bars of each {name}",
                 [[b for b in BARS if getattr(b, name) == value] for value in values])  # fmt: skip


if __name__ == "__main__":
    main()
