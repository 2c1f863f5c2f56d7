"""Exercises on published results: honest errors, volumes of all ranks, and a large dim."""

from dataclasses import replace

from workbench.closed_form import closed_form_bytes
from workbench.exercises.checking import Case, Exercise, by_cases
from workbench.exercises.many_dims import words
from workbench.published import BARS
from workbench.published.figure3 import errors
from workbench.transformer import TransformerSpec


def _errors(rng):
    cases = []
    for _ in range(4):
        bars = [
            bar._replace(samples_per_s=bar.samples_per_s * rng.uniform(0.7, 1.4))
            for bar in rng.sample(BARS, 3)
        ]
        off = errors(bars)
        published = [bar.samples_per_s for bar in bars]
        ours = [value * (1 + error) for value, error in zip(published, off, strict=True)]
        where = words({"ours": [round(value, 3) for value in ours],
                       "published": [round(value, 3) for value in published]})  # fmt: skip
        cases.append(Case((ours, published), sum(map(abs, off)) / len(off), where))
    return cases


def _mean(values):
    values = list(values)
    return sum(values) / len(values)


check_mean_error = Exercise(
    "Write f(ours, published), which returns the mean absolute error of a list of predictions: "
    "each one's error as a part of the published number, such as 0.1 for 10 %.",
    (
        "Too much and too little must not cancel.",
        "The published number is the truth: divide by that one, and take the mean last.",
    ),
    by_cases(
        _errors,
        {
            "Errors of both signs cancel in that mean.": lambda ours, published: _mean(
                o / q - 1 for o, q in zip(ours, published, strict=True)
            ),
            "That is a part of our number, not of the published one.": lambda ours, published: (
                _mean(abs(q / o - 1) for o, q in zip(ours, published, strict=True))
            ),
            "That has a unit: it is no part of the published number.": lambda ours, published: (
                _mean(abs(o - q) for o, q in zip(ours, published, strict=True))
            ),
        },
    ),
)


def _small(rng, p: int, stages=("space", "time"), **changes) -> TransformerSpec:
    dims = {"time": p * rng.randint(1, 4), "space": p * rng.randint(2, 8)}
    return TransformerSpec(dims=dims, stages=stages, d_model=16 * rng.randint(1, 4), num_heads=8,
                           num_layers=rng.randint(1, 4), **changes)  # fmt: skip


def _totals(rng):
    cases = []
    for p in (2, 4, 8, 3):
        spec = _small(rng, p)
        deeper = replace(spec, num_layers=spec.num_layers + 1)
        less, more = (closed_form_bytes(s, "dsp", p=p, phase="forward") for s in (spec, deeper))
        m = spec.activation_bytes()
        cases.append(Case((m, p), p * (more - less), words({"M": m, "p": p}), p))
    return cases


check_total_volume = Exercise(
    "Write f(m, p), which returns the bytes that all p ranks together send in the forward of one "
    "more layer under DSP, which the paper writes as 2M/N for one device.",
    (
        "How many devices are there? And of its buffer a rank keeps one part for itself.",
        "One rank sends (p-1)/p of 2M/p. Now add up all p ranks.",
    ),
    by_cases(
        _totals,
        {
            "That is what one rank sends.": lambda m, p: 2 * m * (p - 1) / p**2,
            "A rank does not send to itself.": lambda m, p: 2 * m,
            "That is as much as the ranks would send if each kept nothing cut.": lambda m, p: (
                2 * m * (p - 1)
            ),
        },
    ),
)


def _shares(rng):
    cases = []
    for factor in (2, 4, 10, 64):
        spec = _small(rng, 4, stages=("space",))
        share, larger = (_attention_share(s) for s in (spec, _longer(spec, factor)))
        given = {"share": round(share, 4), "factor": factor}
        cases.append(Case((share, factor), larger, words(given)))
    return cases


def _longer(spec: TransformerSpec, factor: int) -> TransformerSpec:
    return replace(spec, dims={**spec.dims, "space": factor * spec.dims["space"]})


def _attention_share(spec: TransformerSpec) -> float:
    """The part of the flops that grows with the square of space: f(2S) - 2 f(S) is twice it."""
    return (_longer(spec, 2).flops - 2 * spec.flops) / 2 / spec.flops


check_attention_share = Exercise(
    "Write f(share, factor): attention along space takes this share of a step's flops, and all "
    "else grows with the number of tokens. Return attention's share when space is `factor` times "
    "as long.",
    (
        "All else becomes `factor` times as much. And attention, where each of the tokens looks "
        "at all others along space?",
        "Its pairs are tokens times length: factor squared. Divide by the new sum of both.",
    ),
    by_cases(
        _shares,
        {
            "All else grows, too.": lambda share, factor: (
                share * factor**2 / (1 - share + share * factor**2)
            ),
            "Shares cannot be more than 1: the whole grows as well.": lambda share, factor: (
                share * factor
            ),
        },
    ),
)
