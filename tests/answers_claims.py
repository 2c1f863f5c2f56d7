"""Right and planted wrong answers to the exercises on judging claims."""

import numpy as np
from scipy import stats


def interval(one, other):
    return tuple(stats.ttest_1samp(np.subtract(other, one), 0.0).confidence_interval(0.95))


def swapped(one, other):
    low, high = interval(one, other)
    return high, low


def normal(one, other):
    gains = np.subtract(other, one)
    reach = 1.96 * gains.std(ddof=1) / len(gains) ** 0.5
    return gains.mean() - reach, gains.mean() + reach


def welch(one, other):
    return tuple(stats.ttest_ind(other, one).confidence_interval(0.95))


def judged(low, high, smallest):
    if low > smallest:
        return "supported"
    return "contradicted" if high < -smallest else "not at this scale"


def holm(p_values):
    order, adjusted, largest = np.argsort(p_values), [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = float(largest)
    return adjusted


#: check -> (the right answer, wrong ones).
CLAIM_ANSWERS = {
    "paired_interval": (
        interval,
        lambda one, other: interval(other, one),
        swapped,
        normal,
        welch,
        lambda one, other: (min(np.subtract(other, one)), max(np.subtract(other, one))),
    ),
    "verdict": (
        judged,
        lambda low, high, smallest: judged(low, high, 0.0),
        lambda low, high, smallest: judged((low + high) / 2, (low + high) / 2, smallest),
        lambda low, high, smallest: judged(-high, -low, smallest),
        lambda low, high, smallest: "supported" if high > smallest else judged(low, high, smallest),
    ),
    "holm": (
        holm,
        lambda p_values: [min(1.0, len(p_values) * p) for p in p_values],
        lambda p_values: sorted(holm(p_values)),
        lambda p_values: list(p_values),
        lambda p_values: list(map(float, stats.false_discovery_control(p_values))),
    ),
}
