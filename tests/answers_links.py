"""Right and planted wrong answers to the exercises on links."""

import statistics


def rounded(alpha, rate):
    return round(alpha * 1e6, 3), round(rate / 1e9, 3)


def through_both(a, s, b, t):
    rate = (b - a) / (t - s)
    return rounded(s - a / rate, rate)


def noise(seconds):
    middle = statistics.median(seconds)
    return statistics.median(abs(s / middle - 1) for s in seconds)


#: check -> (the right answer, wrong ones).
LINK_ANSWERS = {
    "line": (
        through_both,
        lambda a, s, b, t: rounded(s - a / (b / t), b / t),
        lambda a, s, b, t: rounded(s, (b - a) / (t - s)),
        lambda a, s, b, t: through_both(a, s, b, t)[::-1],
        lambda a, s, b, t: rounded(t - s, (b - a) / (t - s)),
    ),
    "half_size": (
        lambda alpha, rate: alpha * rate,
        lambda alpha, rate: alpha * rate / 2,
        lambda alpha, rate: 2 * alpha * rate,
        lambda alpha, rate: rate / alpha,
    ),
    "noise": (
        noise,
        lambda seconds: max(abs(s / statistics.median(seconds) - 1) for s in seconds),
        lambda seconds: statistics.fmean(abs(s / statistics.median(seconds) - 1) for s in seconds),
        lambda seconds: statistics.pstdev(seconds) / statistics.fmean(seconds),
        lambda seconds: noise(seconds) * statistics.median(seconds),
    ),
}
