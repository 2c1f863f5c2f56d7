"""Right and planted wrong answers to the exercises on what fits."""


def standing(whole, cut, itemsize, p):
    return 3 * (whole + cut // p) * itemsize


def longest(four, eight, budget):
    return 8 + (budget - eight) * 4 // (eight - four)


def first_fit(peaks, budget):
    return next((i for i, peak in enumerate(peaks) if peak <= budget), -1)


#: check -> (the right answer, wrong ones).
FITTING_ANSWERS = {
    "standing_bytes": (
        standing,
        lambda whole, cut, size, p: (whole + cut // p) * size,
        lambda whole, cut, size, p: 2 * (whole + cut // p) * size,
        lambda whole, cut, size, p: 3 * (whole + cut) * size,
        lambda whole, cut, size, p: 3 * (whole + cut) * size // p,
        lambda whole, cut, size, p: 3 * (whole + cut // p),
    ),
    "longest_video": (
        longest,
        lambda four, eight, budget: budget * 8 // eight,
        lambda four, eight, budget: 8 + (budget - eight) * 4 / (eight - four),
        lambda four, eight, budget: longest(four, eight, budget) - 8,
        lambda four, eight, budget: longest(four, eight, budget) + 1,
    ),
    "smallest_change": (
        first_fit,
        lambda peaks, budget: peaks.index(min(peaks)) if min(peaks) <= budget else -1,
        lambda peaks, budget: first_fit(peaks, budget) + 1,
        lambda peaks, budget: len([peak for peak in peaks if peak <= budget]),
        lambda peaks, budget: next((i for i, q in enumerate(peaks) if q <= budget), 0),
    ),
}
