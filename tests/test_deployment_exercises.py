"""Exercises on deployments: the right answer passes, planted wrong ones do not."""

import pytest
from graded import fresh, names_of, refused_with_hints

from workbench.exercises import deployment


def came(updates, rows):
    return [(n, u) for n, u in zip(rows, updates, strict=True) if u is not None]


#: check -> (the right answer, wrong ones).
ANSWERS = {
    "answers": (
        lambda clients, some, rounds: clients + (rounds + 1) * clients + rounds * some,
        lambda clients, some, rounds: clients + rounds * (clients + some),
        lambda clients, some, rounds: (rounds + 1) * clients + rounds * some,
        lambda clients, some, rounds: clients + (2 * rounds + 1) * clients,
        lambda clients, some, rounds: rounds * some,
        lambda clients, some, rounds: clients + (rounds + 1) * (clients + some),
    ),
    "survivors_mean": (
        lambda u, n: sum(r * x for r, x in came(u, n)) / sum(r for r, _ in came(u, n)),
        lambda u, n: sum(r * x for r, x in came(u, n)) / sum(n),
        lambda u, n: sum(x for _, x in came(u, n)) / len(came(u, n)),
        lambda u, n: sum(r * x for r, x in came(u, n)),
        lambda u, n: sum(x for _, x in came(u, n)) / len(u),
    ),
    "round_bytes": (
        lambda down, up, asked, dead: asked * down + (asked - dead) * up,
        lambda down, up, asked, dead: (asked - dead) * (down + up),
        lambda down, up, asked, dead: asked * (down + up),
        lambda down, up, asked, dead: asked * up + (asked - dead) * down,
        lambda down, up, asked, dead: asked * down + dead * up,
    ),
}


def check(name):
    return fresh(name, deployment)


def test_every_exercise_is_tried():
    assert set(ANSWERS) == names_of(deployment)


@pytest.mark.parametrize("name", ANSWERS)
def test_right_is_right_and_wrong_is_wrong(name):
    right, *wrong = ANSWERS[name]
    assert check(name)(right)
    assert len(wrong) >= 3
    for answer in wrong:
        refused_with_hints(check(name), answer)


@pytest.mark.parametrize(
    ("name", "number", "remark"),
    [
        ("answers", 1, "forgotten easily"),
        ("answers", 2, "forgotten easily"),
        ("answers", 3, "Only per_round"),
        ("survivors_mean", 1, "rows of the dead"),
        ("survivors_mean", 2, "counts the same"),
        ("survivors_mean", 3, "not a mean"),
        ("round_bytes", 1, "sent to the dead"),
        ("round_bytes", 2, "send nothing back"),
        ("round_bytes", 3, "exchanged"),
    ],
)
def test_common_slips_are_named(name, number, remark):
    assert remark in check(name)(ANSWERS[name][number]).text
