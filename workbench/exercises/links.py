"""Exercises on links: alpha and beta from two times, the size where they weigh alike, noise."""

import statistics

from workbench.calibration import Checked, Point, line
from workbench.cluster import Cluster, Device, Link
from workbench.cost import predict
from workbench.exercises.checking import Case, Exercise, by_cases
from workbench.exercises.many_dims import random_spec, words
from workbench.wire import collective_seconds


def _lines(rng):
    cases = []
    for first, times in ((10**4, 8), (2 * 10**4, 50), (10**5, 3), (10**6, 20)):
        alpha, rate = 1e-6 * rng.randint(5, 300), 1e9 * rng.randint(1, 40)
        sizes = first, first * times
        took = [alpha + size / rate for size in sizes]
        found = line(sizes, [[s, s] for s in took])
        given = {"bytes_1": sizes[0], "seconds_1": took[0], "bytes_2": sizes[1],
                 "seconds_2": took[1]}  # fmt: skip
        shown = {name: f"{value:.6g}" for name, value in given.items()}
        expected = round(found.alpha_s * 1e6, 3), round(1e-9 / found.per_unit_s, 3)
        cases.append(Case((*given.values(),), expected, words(shown)))
    return cases


def _rounded(alpha, rate):
    return round(alpha * 1e6, 3), round(rate / 1e9, 3)


check_line = Exercise(
    "Write f(bytes_1, seconds_1, bytes_2, seconds_2): two messages on the same link. Return its "
    "alpha in microseconds and its speed in GB/s, as a pair, each rounded to three places.",
    (
        "Only bytes make the second message take longer; alpha is in both.",
        "The speed is (bytes_2 - bytes_1) / (seconds_2 - seconds_1). What is left of a time when "
        "its bytes' share is taken off is alpha.",
    ),
    by_cases(
        _lines,
        {
            "Bytes over seconds still has the latency in it.": lambda a, s, b, t: _rounded(
                s - a / (b / t), b / t
            ),
            "alpha is what is left when the bytes' share is taken off.": lambda a, s, b, t: (
                _rounded(s, (b - a) / (t - s))
            ),
        },
    ),
)


def _halves(rng):
    cases = []
    for p in (2, 4, 8, 8):
        alpha, rate = 1e-6 * rng.randint(5, 300), 10**9 * rng.randint(1, 40)
        node = Cluster("node", Device("any", 1, 1.0), 8, Link("wire", rate, alpha_s=alpha))
        sent = alpha * rate
        both = collective_seconds("ring_shift", sent, p, node)
        given = {"alpha_s": alpha, "bytes_per_s": rate}
        cases.append(Case((alpha, rate), both * rate / 2, words(given), p))
    return cases


check_half_size = Exercise(
    "Write f(alpha_s, bytes_per_s), which returns how many bytes a message has of which half the "
    "time is latency.",
    (
        "Half is latency: then the bytes take as long as alpha.",
        "How many bytes does the link carry in alpha_s seconds?",
    ),
    by_cases(
        _halves,
        {
            "In that time it carries twice as much as that.": lambda alpha, rate: alpha * rate / 2,
            "With so many bytes a third is latency.": lambda alpha, rate: 2 * alpha * rate,
        },
    ),
)


def _repeats(rng):
    spec, cases = random_spec(rng), []
    node = Cluster("node", Device("any", 1, 1e12), 8, Link("wire", 1e9))
    said = predict(spec, "single", node, p=1)
    for count in (3, 5, 9, 9):
        times = [rng.randint(80, 140) / 1000 for _ in range(count)]
        found = Checked(Point(spec, "single", 1), said, tuple(times))
        cases.append(Case((times,), found.noise, f"seconds={times}"))
    return cases


def _spread(seconds, middle=statistics.median, how=statistics.median):
    at = middle(seconds)
    return how([abs(s / at - 1) for s in seconds])


check_noise = Exercise(
    "Write f(seconds), a list of an odd number of repeats. Return the noise floor: the median of "
    "how far each repeat is from the median of all, as a share of that median.",
    (
        "First the median of all repeats. Then how far each of them is from it, without sign.",
        "abs(s / median - 1) for each, and of those the median again.",
    ),
    by_cases(
        _repeats,
        {
            "One slow repeat moves a mean; a median stays.": lambda seconds: _spread(
                seconds, how=statistics.fmean
            ),
            "Take the distances from the median, not from the mean.": lambda seconds: _spread(
                seconds, middle=statistics.fmean
            ),
            "That is the worst repeat.": lambda seconds: _spread(seconds, how=max),
        },
    ),
)
