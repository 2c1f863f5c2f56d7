"""Exercises on what fits: bytes that never shrink, the longest video, the smallest change."""

from dataclasses import replace
from math import prod

from workbench.exercises.checking import Case, Exercise, by_cases
from workbench.exercises.many_dims import random_spec, words
from workbench.footprint import closed_form_memory
from workbench.strategies import STRATEGIES


def _standing(rng):
    cases = []
    for dtype, itemsize, p, name in (
        ("bfloat16", 2, 2, "dsp"), ("float32", 4, 2, "megatron-sp"),
        ("bfloat16", 2, 4, "megatron-sp"), ("float32", 4, 4, "dsp"),
    ):  # fmt: skip
        spec = random_spec(rng, 4, d_model=16 * rng.randint(1, 3), num_heads=4)
        held, without = (
            closed_form_memory(spec, name, p=p, dtype=dtype, optimizer=optimizer)
            for optimizer in ("adamw", None)
        )
        counts = list(spec.weight_counts())
        counters = 4 * sum(layers for _, _, layers in counts)
        averages = held.peak_bytes - without.peak_bytes - counters
        cut = sum(
            layers * prod(shape)
            for weight, shape, layers in counts
            if STRATEGIES[name].cut_dim(weight) is not None
        )
        given = {"whole": spec.parameters - cut, "cut": cut, "itemsize": itemsize, "p": p}
        note = f"{name} cuts weights" if cut else ""
        cases.append(Case((*given.values(),), averages * 3 // 2, words(given), p, note))
    return cases


check_standing_bytes = Exercise(
    "Write f(whole, cut, itemsize, p), which returns the bytes that a rank holds between two "
    "steps: weights, and AdamW's two averages of each, all in the same dtype. `whole` parameters "
    "are on every rank, `cut` ones are cut over the p ranks. (AdamW's counters are left out.)",
    (
        "Each parameter is there three times: itself and two averages.",
        "Averages are cut as their weights are: a rank has cut / p of those, and all the others.",
    ),
    by_cases(
        _standing,
        {
            "Those are the weights alone; the optimizer keeps more than they are.": (
                lambda whole, cut, size, p: (whole + cut // p) * size
            ),
            "That is the optimizer alone; the weights are there, too.": (
                lambda whole, cut, size, p: 2 * (whole + cut // p) * size
            ),
            "Not all weights are cut.": lambda whole, cut, size, p: 3 * (whole + cut) * size // p,
            "A rank keeps its part of the cut ones only.": (
                lambda whole, cut, size, p: 3 * (whole + cut) * size
            ),
        },
    ),
)


def _longest(rng):
    cases = []
    for frames, over in ((9, 0), (12, 1), (15, 2), (30, 1)):
        dims = {"time": 4, "space": 4 * rng.randint(8, 12)}
        spec = random_spec(rng, dims=dims, d_model=24, num_layers=rng.randint(1, 2), batch=1)

        def peak(time, spec=spec):
            longer = replace(spec, dims={**spec.dims, "time": time})
            return closed_form_memory(longer, "single", p=1).peak_bytes

        four, eight = peak(4), peak(8)
        budget = peak(frames) + over * (eight - four) // 12
        where = words({"four": four, "eight": eight, "budget": budget})
        cases.append(Case((four, eight, budget), frames, where))
    return cases


check_longest_video = Exercise(
    "Write f(four, eight, budget), which returns how many frames fit: four and eight are the peak "
    "bytes with 4 frames and with 8, budget is the device's memory.",
    (
        "Part of the peak is there whatever the length. What does each frame add?",
        "(eight - four) / 4 a frame. How often does that fit into what is left beyond eight?",
    ),
    by_cases(
        _longest,
        {
            "As if weights grew with the frames.": lambda four, eight, budget: budget * 8 // eight,
            "A part of a frame does not fit.": lambda four, eight, budget: (
                8 + (budget - eight) * 4 / (eight - four)
            ),
            "You counted how many more fit, not how many.": lambda four, eight, budget: (
                (budget - eight) * 4 // (eight - four)
            ),
        },
    ),
)


def _ways(rng):
    cases, tried = [], ({}, {"checkpoint": "selective"}, {"checkpoint": "block"}, {"p": 4})
    for enough in (0, 1, 2, None):
        spec = random_spec(rng, 4, d_model=32, num_heads=4, batch=1, num_layers=1)
        peaks = [closed_form_memory(spec, "dsp", **{"p": 2, **how}).peak_bytes for how in tried]
        budget = min(peaks) - 1 if enough is None else peaks[enough]
        expected = next((i for i, peak in enumerate(peaks) if peak <= budget), -1)
        note = "nothing has to change" if expected == 0 else ""
        cases.append(Case((peaks, budget), expected, words({"budget": budget}, peaks=peaks),
                          note=note))  # fmt: skip
    return cases


check_smallest_change = Exercise(
    "Write f(peaks, budget). peaks are the peak bytes as it is, and then with each change, from "
    "the smallest change to the largest. Return the number of the first that fits, counted from "
    "0, where 0 means that nothing has to change; -1 if none fits.",
    (
        "The smallest change is wanted, not the one that leaves most room.",
        "Go through peaks in order and stop at the first that is no larger than the budget.",
    ),
    by_cases(
        _ways,
        {
            "That leaves most room; a smaller change would do.": lambda peaks, budget: (
                peaks.index(min(peaks)) if min(peaks) <= budget else -1
            ),
            "A peak that is just the budget fits.": lambda peaks, budget: next(
                (i for i, peak in enumerate(peaks) if peak < budget), -1
            ),
            "You counted from 1.": lambda peaks, budget: next(
                (i + 1 for i, peak in enumerate(peaks) if peak <= budget), -1
            ),
        },
    ),
)
