"""Exercises of notebooks 33 and 36: the right answer passes, planted wrong ones do not."""

import numpy as np
import pytest
import torch
from graded import fresh, names_of, refused_with_hints

from workbench.exercises import averaging, robustness


def products(a, b):
    exact = sum(y @ x for x, y in zip(a, b, strict=True)) / len(a)
    return exact, (sum(b) / len(b)) @ (sum(a) / len(a))


def relative(a, b):
    exact, apart = products(a, b)
    return float((exact - apart).norm() / exact.norm())


def stacks(a, b, rows, left=lambda p: 1.0, right=lambda p: p):
    parts = [n / sum(rows) for n in rows]
    return (
        torch.cat([left(p) * y for p, y in zip(parts, b, strict=True)], dim=1),
        torch.cat([right(p) * x for p, x in zip(parts, a, strict=True)]),
    )


def trimmed(values, trim, low=1, high=1):
    k, kept = int(trim * len(values)), sorted(values)
    kept = kept[low * k : len(values) - high * k]
    return sum(kept) / len(kept)


def scores(updates, count):
    near = [sorted(float((u - v).pow(2).sum()) for v in updates) for u in updates]
    return [sum(row[1 : 1 + count]) for row in near]


def krum(updates, f):
    return int(np.argmin(scores(updates, len(updates) - f - 2)))


def nearest_to_mean(updates, f):
    mean = sum(updates) / len(updates)
    return int(np.argmin([float((u - mean).norm()) for u in updates]))


def most(rule, n):
    return {"median": (n - 1) // 2, "Krum": (n - 3) // 2, "Bulyan": (n - 3) // 4}[rule]


#: check -> (the right answer, wrong ones).
ANSWERS = {
    "relative_gap": (
        relative,
        lambda a, b: float((products(a, b)[0] - products(a, b)[1]).norm()),
        lambda a, b: float((products(a, b)[0] / products(a, b)[1].norm() - 1).norm()),
        lambda a, b: float(products(a, b)[1].norm() / products(a, b)[0].norm()),
        lambda a, b: relative(a, b) ** 2,
        lambda a, b: relative(a, b) * float(products(a, b)[0].norm() / products(a, b)[1].norm()),
    ),
    "stacked_factors": (
        stacks,
        lambda a, b, rows: stacks(a, b, rows, left=lambda p: p),
        lambda a, b, rows: stacks(a, b, [1] * len(rows)),
        lambda a, b, rows: stacks(a, b, rows, right=lambda p: 1.0),
        lambda a, b, rows: (sum(b) / len(b), sum(a) / len(a)),
        lambda a, b, rows: stacks(a, b[::-1], rows),
        lambda a, b, rows: stacks(a, b, rows)[::-1],
        lambda a, b, rows: products(a, b)[0],
    ),
    "merged_bytes": (
        lambda o, i, r, u: 4 * min(r * u * (o + i), o * i),
        lambda o, i, r, u: 4 * r * u * (o + i),
        lambda o, i, r, u: 4 * o * i,
        lambda o, i, r, u: min(r * u * (o + i), o * i),
        lambda o, i, r, u: 4 * max(r * u * (o + i), o * i),
        lambda o, i, r, u: 4 * min(r * (o + i), o * i),
        lambda o, i, r, u: 4 * min(u * (o + i), o * i),
    ),
    "turning_scale": (
        lambda n, k: (n - k) / k,
        lambda n, k: n / k,
        lambda n, k: k / (n - k),
        lambda n, k: n - 1,
        lambda n, k: n - k,
        lambda n, k: (k - n) / k,
    ),
    "trimmed_mean": (
        trimmed,
        lambda values, trim: sum(values) / len(values),
        lambda values, trim: trimmed(values, trim, low=0),
        lambda values, trim: trimmed(values, trim, high=0),
        lambda values, trim: trimmed(values, trim / 2),
        lambda values, trim: sorted(values)[len(values) // 2],
        lambda values, trim: trimmed(values, trim) * (1 - 2 * trim),
    ),
    "krum_choice": (
        krum,
        lambda updates, f: int(np.argmin(scores(updates, len(updates) - 1))),
        lambda updates, f: int(np.argmin(scores(updates, 1))),
        lambda updates, f: int(np.argmax(scores(updates, len(updates) - f - 2))),
        lambda updates, f: krum(updates, f) + 1,
        nearest_to_mean,
        lambda updates, f: updates[krum(updates, f)],
        lambda updates, f: int(np.argmin(scores(updates, len(updates) - f - 3))),
    ),
    "most_attackers": (
        most,
        lambda rule, n: n // 4 if rule == "Bulyan" else n // 2,
        lambda rule, n: most(rule, n) + 1,
        lambda rule, n: most("Krum", n),
        lambda rule, n: (n - 3) / 2 if rule == "Krum" else most(rule, n),
        lambda rule, n: n // 2 if rule == "median" else most(rule, n),
    ),
}  # fmt: skip
MODULES = (averaging, robustness)


def check(name):
    return fresh(name, *MODULES)


def test_every_exercise_is_tried():
    assert set(ANSWERS) == names_of(*MODULES)


@pytest.mark.parametrize("name", ANSWERS)
def test_the_right_answer_is_right(name):
    verdict = check(name)(ANSWERS[name][0])
    assert verdict, verdict
    assert check(name)(lambda *given: None).passed is None


@pytest.mark.parametrize(
    ("name", "number"), [(name, i) for name in ANSWERS for i in range(1, len(ANSWERS[name]))]
)
def test_wrong_answers_are_refused_with_hints(name, number):
    refused_with_hints(check(name), ANSWERS[name][number])


@pytest.mark.parametrize(
    ("name", "number", "remark"),
    [
        ("relative_gap", 1, "not divided"),
        ("relative_gap", 5, "FedAvg's product"),
        ("stacked_factors", 1, "counts twice"),
        ("stacked_factors", 2, "counts the same"),
        ("stacked_factors", 4, "columns"),
        ("merged_bytes", 1, "even where the whole change is smaller"),
        ("merged_bytes", 3, "bytes are asked for"),
        ("turning_scale", 2, "other way round"),
        ("trimmed_mean", 2, "Only the largest"),
        ("krum_choice", 1, "All others count"),
        ("krum_choice", 2, "Only the nearest"),
        ("krum_choice", 7, "The client itself"),
        ("most_attackers", 1, "not fewer than half, and 3"),
        ("most_attackers", 5, "not fewer than half."),
    ],
)
def test_common_slips_are_named(name, number, remark):
    assert remark in check(name)(ANSWERS[name][number]).text
