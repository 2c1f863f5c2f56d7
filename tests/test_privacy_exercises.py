"""Exercises on privacy: the right answer passes, planted wrong ones do not."""

import pytest
import torch
from graded import fresh, names_of, refused_with_hints

from workbench.exercises import privacy
from workbench.exercises.privacy import _all, _clip, _lies


def sent(values, masks, modulus):
    numbers = list(values)
    for (i, j), mask in masks.items():
        numbers[i] += mask
        numbers[j] -= mask
    return [number % modulus for number in numbers]


def both_add(values, masks, modulus):
    added = [sum(mask for pair, mask in masks.items() if k in pair) for k in range(len(values))]
    return [(value + more) % modulus for value, more in zip(values, added, strict=True)]


def mean(changes, clip, noise, expected):
    return (sum(_clip(change, clip) for change in changes) + noise) / expected


def by_rank(seen, change):
    rank = torch.linalg.matrix_rank(change)
    both = [torch.cat([change, row[None]]) for row in seen]
    return [t for t, table in enumerate(both) if torch.linalg.matrix_rank(table) == rank]


#: check -> (the right answer, wrong ones).
ANSWERS = {
    "masks": (
        sent,
        lambda v, m, n: _all(v, m, n, sign=-1),
        both_add,
        lambda v, m, n: list(v),
        lambda v, m, n: [a - n for a in sent(v, m, n)],
        lambda v, m, n: sum(v),
    ),
    "private_mean": (
        mean,
        lambda c, most, noise, n: (sum(c) + noise) / n,
        lambda c, most, noise, n: mean(c, most, noise, len(c)),
        lambda c, most, noise, n: mean(c, most, 0 * noise, n) + noise,
        lambda c, most, noise, n: (sum(x.clamp(-most, most) for x in c) + noise) / n,
        lambda c, most, noise, n: (sum(x * most / x.norm() for x in c) + noise) / n,
        lambda c, most, noise, n: mean(c, most, 0 * noise, n),
        lambda c, most, noise, n: (_clip(sum(c), most) + noise) / n,
    ),
    "tokens": (
        by_rank,
        lambda seen, change: [t for t in range(len(seen)) if t not in by_rank(seen, change)],
        lambda seen, change: list(range(len(seen))),
        lambda seen, change: [],
        lambda seen, change: [t for t, e in enumerate(_lies(seen, change[:1])) if e < 1e-6],
        lambda seen, change: len(by_rank(seen, change)),
    ),
}  # fmt: skip


def check(name):
    return fresh(name, privacy)


def test_every_exercise_is_tried():
    assert set(ANSWERS) == names_of(privacy)


@pytest.mark.parametrize("name", ANSWERS)
def test_the_right_answer_is_right(name):
    assert check(name)(ANSWERS[name][0])


@pytest.mark.parametrize(
    ("name", "number"), [(name, i) for name in ANSWERS for i in range(1, len(ANSWERS[name]))]
)
def test_wrong_answers_are_refused_with_hints(name, number):
    refused_with_hints(check(name), ANSWERS[name][number])


@pytest.mark.parametrize(
    ("name", "number", "remark"),
    [
        ("masks", 1, "The signs are the other way round"),
        ("masks", 2, "Both of a pair add"),
        ("private_mean", 1, "not clipped"),
        ("private_mean", 2, "expected number"),
        ("private_mean", 3, "divided, too"),
        ("private_mean", 4, "Each number is clipped"),
        ("private_mean", 5, "never makes longer"),
        ("private_mean", 6, "noise is missing"),
        ("tokens", 1, "Those are the others"),
        ("tokens", 2, "That is every token"),
    ],
)
def test_common_slips_are_named(name, number, remark):
    assert remark in check(name)(ANSWERS[name][number]).text
