"""Exercises on judging a claim: an interval of paired effects, a verdict, many claims at once."""

from math import sqrt
from statistics import fmean, pstdev, stdev

from scipy.special import stdtrit

from workbench.exercises.checking import Case, Exercise, by_cases


def _reach(n, spread):
    return float(stdtrit(n - 1, 0.975)) * spread / sqrt(n)


def _around(mean, reach):
    return (mean - reach, mean + reach)


def _gains(one, other):
    return [b - a for a, b in zip(one, other, strict=True)]


def _runs(rng):
    from workbench.federated.claims.verdict import paired_interval

    cases = []
    for seeds in (3, 5, 8):
        levels = [rng.uniform(1.5, 2.5) for _ in range(seeds)]
        one = [level - rng.uniform(-0.05, 0.3) for level in levels]
        found = paired_interval(_gains(one, levels))
        cases.append(Case((one, levels), (found.low, found.high), f"{seeds} seeds"))
    return cases


check_paired_interval = Exercise(
    "Write f(one, other), which returns (low, high): the 95 % t-interval of the mean of "
    "`other - one` over seeds; the lists hold one loss a seed.",
    (
        "Make one list of differences. The interval is its mean, and a reach on either side.",
        "The reach: scipy.stats.t.ppf(0.975, n - 1) times the standard deviation (n - 1) over "
        "the square root of n.",
    ),
    by_cases(
        _runs,
        {
            "The sign: other minus one, so that a lower loss of `one` is above 0.": (
                lambda one, other: _around(
                    fmean(_gains(other, one)), _reach(len(one), stdev(_gains(one, other)))
                )
            ),
            "1.96 is for many seeds; with few, t is larger.": lambda one, other: _around(
                fmean(_gains(one, other)), 1.96 * stdev(_gains(one, other)) / sqrt(len(one))
            ),
            "That is the spread of one seed; the mean of n has less.": lambda one, other: _around(
                fmean(_gains(one, other)),
                _reach(len(one), stdev(_gains(one, other))) * sqrt(len(one)),
            ),
            "The deviation is divided by n, not by n - 1 (NumPy: ddof=1).": lambda one, other: (
                _around(fmean(_gains(one, other)), _reach(len(one), pstdev(_gains(one, other))))
            ),
            "Seeds come in pairs; you took the two lists apart.": lambda one, other: _around(
                fmean(_gains(one, other)),
                _reach(len(one), sqrt(stdev(one) ** 2 + stdev(other) ** 2)),
            ),
        },
    ),
)


def _ends(rng):
    from workbench.federated.claims.verdict import verdict

    cases = []
    sizes = ((2, 5), (-6, -2), (0.2, 4), (-4, -0.3), (-0.5, 0.6), (-3, 4), (0.1, 0.8), (1, 3))
    for low, high in (*sizes, (-3, -1)):
        smallest = rng.uniform(0.01, 0.2)
        ends = (low * smallest, high * smallest)
        where = f"the interval {ends[0]:+.3f} to {ends[1]:+.3f}, smallest effect {smallest:.3f}"
        cases.append(Case((*ends, smallest), verdict(*ends, smallest), where))
    return cases


check_verdict = Exercise(
    "Write f(low, high, smallest), which returns 'supported', 'contradicted' or 'not at this "
    "scale' for an interval of the effect.",
    (
        "What must hold for every value in the interval, if the claim is to be supported?",
        "Supported: the whole interval is above the smallest effect. Contradicted: the whole "
        "interval is below minus that.",
    ),
    by_cases(
        _ends,
        {
            "An effect that is just the smallest is not above it.": lambda low, high, smallest: (
                "supported"
                if low >= smallest
                else "contradicted"
                if high <= -smallest
                else "not at this scale"
            ),
            "An effect too small to interest anybody is no support: use `smallest`.": (
                lambda low, high, smallest: (
                    "supported" if low > 0 else "contradicted" if high < 0 else "not at this scale"
                )
            ),
            "The middle of the interval is not enough: look at its ends.": (
                lambda low, high, smallest: (
                    "supported"
                    if (low + high) / 2 > smallest
                    else "contradicted"
                    if (low + high) / 2 < -smallest
                    else "not at this scale"
                )
            ),
            "That an effect is small does not contradict the claim's direction.": (
                lambda low, high, smallest: (
                    "supported"
                    if low > smallest
                    else "contradicted"
                    if high < smallest
                    else "not at this scale"
                )
            ),
        },
    ),
)


def _families(rng):
    from workbench.federated.claims.verdict import holm

    cases = []
    for sizes in ((0.001, 0.02, 0.3), (0.004, 0.011, 0.012, 0.6), (0.01, 0.02, 0.022, 0.03, 0.5)):
        p_values = [p * rng.uniform(0.95, 1.05) for p in sizes]
        rng.shuffle(p_values)
        said = ", ".join(f"{p:.4f}" for p in p_values)
        cases.append(Case((p_values,), holm(p_values), f"p = {said}"))
    return cases


def _stepwise(p_values, factor, running=True):
    adjusted, largest = list(p_values), 0.0
    for place, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        mine = min(1.0, factor(len(p_values), place) * p_values[i])
        largest = max(largest, mine)
        adjusted[i] = largest if running else mine
    return adjusted


check_holm = Exercise(
    "Write f(p_values), which returns Holm's adjusted p-values, in the order given.",
    (
        "Go through them from the smallest; the first of m is multiplied by m, the next by m - 1.",
        "None may be less than one before it, none above 1; then put them back in their order.",
    ),
    by_cases(
        _families,
        {
            "That is Bonferroni: Holm multiplies the later ones by less.": lambda p_values: (
                _stepwise(p_values, lambda m, place: m)
            ),
            "A larger p must not become less than a smaller one did.": lambda p_values: _stepwise(
                p_values, lambda m, place: m - place, running=False
            ),
            "Right, but in the order of size; the order given is asked for.": lambda p_values: (
                sorted(_stepwise(p_values, lambda m, place: m - place))
            ),
            "Smallest last? The smallest is multiplied by most.": lambda p_values: _stepwise(
                p_values, lambda m, place: place + 1
            ),
        },
    ),
)
