"""Exercises on unlike clients and on bytes: right answers pass, planted wrong ones don't."""

import numpy as np
import pytest
import torch
from graded import fresh, names_of, refused_with_hints

from workbench.exercises import communication, heterogeneity


def cuts(rows, shares):
    ends = (np.cumsum(shares)[:-1] * rows).astype(int).tolist()
    return np.diff([0, *ends, rows]).tolist()


def in_time(due, deadline):
    return [i for i, t in enumerate(due) if t <= deadline]


def last(due, deadline):
    return max([t for t in due if t <= deadline], default=0.0)


def waits(due, deadline):
    return in_time(due, deadline), min(max(due), deadline)


def largest(x, k):
    places = sorted(range(len(x)), key=lambda i: -abs(x[i]))[:k]
    return torch.stack([x[i] if i in places else torch.tensor(0.0) for i in range(len(x))])


def feedback(changes, k, keep=lambda wanted, sent, change: wanted - sent):
    kept, found = torch.zeros_like(changes[0]), []
    for change in changes:
        wanted = change + kept
        found.append(largest(wanted, k))
        kept = keep(wanted, found[-1], change)
    return found


def forgetful(changes, k):
    return feedback(changes, k, lambda wanted, sent, change: change - largest(change, k))


def levels(x, scale=127):
    unit = x.abs().max() / scale
    return (x / unit).round() * unit


#: check -> (the right answer, wrong ones).
ANSWERS = {
    "dealt_rows": (
        cuts,
        lambda rows, shares: [int(rows * share) for share in shares],
        lambda rows, shares: (np.cumsum(shares) * rows).astype(int).tolist(),
        lambda rows, shares: np.diff(np.rint(np.cumsum([0, *shares]) * rows)).astype(int).tolist(),
        lambda rows, shares: [rows * share for share in shares],
        lambda rows, shares: [rows // len(shares)] * len(shares),
        lambda rows, shares: cuts(rows, shares)[::-1],
    ),
    "deadline": (
        waits,
        lambda due, deadline: (in_time(due, deadline), deadline),
        lambda due, deadline: (in_time(due, deadline), last(due, deadline)),
        lambda due, deadline: (in_time(due, deadline), max(due)),
        lambda due, deadline: (in_time(due, deadline), min(sum(due), deadline)),
        lambda due, deadline: (list(range(len(due))), min(max(due), deadline)),
        lambda due, deadline: waits(due, deadline)[::-1],
        in_time,
    ),
    "proximal_gradient": (
        lambda g, w, start, mu: g + mu * (w - start),
        lambda g, w, start, mu: g - mu * (w - start),
        lambda g, w, start, mu: g + mu / 2 * (w - start),
        lambda g, w, start, mu: g + mu * w,
        lambda g, w, start, mu: mu * (w - start),
        lambda g, w, start, mu: g + mu * (w - start) ** 2,
        lambda g, w, start, mu: g,
    ),
    "top_k_bytes": (
        lambda numbers, fraction: 8 * max(1, round(fraction * numbers)),
        lambda numbers, fraction: 4 * max(1, round(fraction * numbers)),
        lambda numbers, fraction: max(1, round(fraction * numbers)),
        lambda numbers, fraction: 4 * numbers,
        lambda numbers, fraction: 8 * round(fraction * numbers),
        lambda numbers, fraction: 8 * fraction * numbers,
    ),
    "eight_bits": (
        levels,
        lambda x: levels(x, 128),
        lambda x: (127 * x / x.abs().max()).round(),
        lambda x: (127 * x / x.abs().max()).trunc() * x.abs().max() / 127,
        lambda x: x,
        lambda x: x.round(),
    ),
    "error_feedback": (
        feedback,
        lambda changes, k: [largest(change, k) for change in changes],
        lambda changes, k: feedback(changes, k, lambda wanted, sent, change: wanted),
        forgetful,
        lambda changes, k: feedback(changes, k, lambda wanted, sent, change: sent),
        lambda changes, k: changes,
    ),
    "upload_hours": (
        lambda size, clients, rounds, mbit: 8e-6 * size / mbit * rounds / 3600,
        lambda size, clients, rounds, mbit: 8e-6 * size / mbit * rounds * clients / 3600,
        lambda size, clients, rounds, mbit: 1e-6 * size / mbit * rounds / 3600,
        lambda size, clients, rounds, mbit: 8e-6 * size / mbit * rounds,
        lambda size, clients, rounds, mbit: 8e-6 * size / mbit / 3600,
        lambda size, clients, rounds, mbit: 8 / 2**20 * size / mbit * rounds / 3600,
    ),
}  # fmt: skip


def check(name):
    return fresh(name, heterogeneity, communication)


def test_every_exercise_is_tried():
    assert set(ANSWERS) == names_of(heterogeneity, communication)


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
        ("dealt_rows", 1, "rounded by itself"),
        ("dealt_rows", 2, "places of the cuts"),
        ("dealt_rows", 3, "Round down"),
        ("deadline", 1, "needn't wait"),
        ("deadline", 2, "waits until the deadline"),
        ("deadline", 3, "that are late"),
        ("deadline", 7, "Two things"),
        ("proximal_gradient", 1, "The sign"),
        ("proximal_gradient", 2, "The half is gone"),
        ("proximal_gradient", 3, "weight decay"),
        ("top_k_bytes", 1, "places are missing"),
        ("top_k_bytes", 4, "less than one"),
        ("eight_bits", 1, "128 levels"),
        ("eight_bits", 3, "cut off"),
        ("error_feedback", 1, "forgotten"),
        ("error_feedback", 2, "sent again"),
        ("error_feedback", 3, "last round's own"),
        ("upload_hours", 1, "side by side"),
        ("upload_hours", 2, "a byte has 8"),
    ],
)
def test_common_slips_are_named(name, number, remark):
    assert remark in check(name)(ANSWERS[name][number]).text
