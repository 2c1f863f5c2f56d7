"""Exercises on training together: the right answer passes, planted wrong ones do not."""

from math import ceil
from statistics import fmean, median

import pytest
from graded import fresh, names_of, refused_with_hints

from workbench.exercises import together


def numbers(tune, tokens, width, kv_width, layers):
    return tokens * (width if tune == "prompt" else 2 * layers * kv_width)


def first(losses, target):
    return next((i for i, loss in enumerate(losses) if loss <= target), -1)


def worst(losses):
    count = ceil(len(losses) / 10) if len(losses) >= 10 else 1
    return fmean(sorted(losses)[-count:])


#: check -> (the right answer, wrong ones); those that a remark names come first.
ANSWERS = {
    "trained_numbers": (
        numbers,
        lambda tune, t, w, kv, n: numbers(tune, t, w, kv, n) // (1 if tune == "prompt" else 2),
        lambda *given: 4 * numbers(*given),
        lambda tune, t, w, kv, n: numbers(tune, t, w, kv, 1),
        lambda tune, t, w, kv, n: numbers(tune, t, w, w, n),
        lambda tune, t, w, kv, n: t * w,
        lambda tune, t, w, kv, n: numbers(tune, 1, w, kv, n),
    ),
    "rounds_to_target": (
        first,
        lambda losses, target: first(losses, target) + (first(losses, target) >= 0),
        lambda losses, target: first([*losses[:-1], min(target, losses[-1])], target),
        lambda losses, target: max((i for i, x in enumerate(losses) if x <= target), default=-1),
        lambda losses, target: first([-x for x in losses], -target),
        lambda losses, target: losses.index(min(losses)),
        lambda losses, target: sum(loss > target for loss in losses),
        lambda losses, target: first(losses, target) >= 0,
    ),
    "worst_clients": (
        worst,
        max,
        lambda losses: -worst([-loss for loss in losses]),
        fmean,
        lambda losses: fmean(sorted(losses)[-max(1, len(losses) // 10) :]),
        lambda losses: sorted(losses)[-ceil(len(losses) / 10)],
        median,
        lambda losses: fmean(sorted(losses)[-ceil(len(losses) / 4) :]),
    ),
}
REMARKS = {
    "trained_numbers": ("keys and values", "Those are bytes", "every layer", "see kv_width"),
    "rounds_to_target": ("it counts 0", "-1 is asked for", "the first is asked for"),
    "worst_clients": ("however many", "best off", "mean client", "rounded down"),
}


def check(name):
    return fresh(name, together)


def test_every_exercise_is_tried():
    assert set(ANSWERS) == names_of(together)


@pytest.mark.parametrize("name", ANSWERS)
def test_the_right_answer_passes_and_wrong_ones_get_hints(name):
    right, *wrong = ANSWERS[name]
    assert check(name)(right)
    for number, answer in enumerate(wrong):
        one = refused_with_hints(check(name), answer)
        if number < len(REMARKS[name]):
            assert REMARKS[name][number] in one.text
