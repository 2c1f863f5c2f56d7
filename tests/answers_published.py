"""Right and planted wrong answers to the exercises on published results."""


def mean_error(ours, published):
    return sum(abs(o / q - 1) for o, q in zip(ours, published, strict=True)) / len(ours)


def signed(ours, published):
    return sum(o / q - 1 for o, q in zip(ours, published, strict=True)) / len(ours)


#: check -> (the right answer, wrong ones).
PUBLISHED_ANSWERS = {
    "mean_error": (
        mean_error,
        signed,
        lambda ours, published: mean_error(published, ours),
        lambda ours, published: abs(sum(ours) / sum(published) - 1),
        lambda ours, published: max(abs(o / q - 1) for o, q in zip(ours, published, strict=True)),
    ),
    "total_volume": (
        lambda m, p: 2 * m * (p - 1) // p,
        lambda m, p: 2 * m * (p - 1) // p**2,
        lambda m, p: 2 * m,
        lambda m, p: 2 * m // p,
        lambda m, p: 2 * m * (p - 1),
    ),
    "attention_share": (
        lambda share, factor: share * factor / (1 - share + share * factor),
        lambda share, factor: share * factor,
        lambda share, factor: share * factor**2 / (1 - share + share * factor**2),
        lambda share, factor: share,
        lambda share, factor: share * factor / (1 + share * factor),
    ),
}
