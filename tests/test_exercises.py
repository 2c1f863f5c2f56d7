"""Every check takes the right answer and refuses planted wrong ones, without giving it away."""

import numpy as np
import pytest
import torch
from answers import (
    ANSWERS,
    GatherKV,
    MoreBackward,
    NothingGathered,
    QueriesToo,
    Raises,
    WrongGradients,
    join,
)

from workbench import exercises
from workbench.exercises.checking import Case, Exercise, Verdict, by_cases, same
from workbench.exercises.prompts import beside, recall
from workbench.layout import Layout
from workbench.strategies import Ring, Ulysses
from workbench.units import human_bytes

CHECKS = [name for name in exercises.__all__ if name.startswith("check_")]


@pytest.fixture
def check():
    """Return a fresh copy of an exercise: the learner's count of wrong tries stays at zero."""
    return lambda name: Exercise(*(getattr(exercises, f"check_{name}").__dict__[k] for k in KEYS))


KEYS = ("task", "hints", "grade")


def test_every_exercise_of_this_half_is_tried():
    strategies = {"check_own_strategy", "check_by_heads", "check_by_switch"}
    here = {f"check_{name}" for name in ANSWERS} | strategies
    names = "averaging communication deployment federated heterogeneity privacy robustness"
    other = [getattr(exercises, name) for name in (*names.split(), "together")]
    assert here == {n for n in CHECKS if not any(hasattr(half, n) for half in other)}


@pytest.mark.parametrize("name", ANSWERS)
def test_the_right_answer_is_right(name, check):
    verdict = check(name)(ANSWERS[name][0])
    assert verdict, verdict
    assert repr(verdict).startswith("✔ Right")


@pytest.mark.parametrize(
    ("name", "number"), [(name, i) for name in ANSWERS for i in range(1, len(ANSWERS[name]))]
)
def test_wrong_answers_are_refused(name, number, check):
    exercise = check(name)
    verdict = exercise(ANSWERS[name][number])
    assert verdict.passed is False
    assert exercise.hints[0] in verdict.text
    assert exercise.hints[1] in exercise(ANSWERS[name][number]).text
    assert len(ANSWERS[name]) > 3


@pytest.mark.parametrize("name", [name.removeprefix("check_") for name in CHECKS])
def test_nothing_answered_is_no_failure(name, check):
    exercise = check(name)
    for nothing in (None, ..., lambda *given: None) if name in ANSWERS else (None,):
        if callable(nothing) and not callable(ANSWERS[name][0]):
            continue
        verdict = exercise(nothing)
        assert verdict.passed is None
        assert not verdict
        assert "Not answered yet" in verdict.text
        assert exercise.hints[0] in verdict.text
    assert exercise.hints[1] in exercise(hint=2).text
    assert exercise.wrong_tries == 0


def test_own_strategy_takes_the_right_one_and_says_what_is_wrong_with_others(check):
    assert "GatherKV on 2 and 3 ranks" in repr(check("own_strategy")(GatherKV))
    for wrong, why in (
        (WrongGradients, "gradients differ"),
        (NothingGathered, "output differs"),
        (QueriesToo, "sends more"),
        (Ulysses, "forward it sends by all_to_all"),
        (Ring, "forward it sends by ring_shift"),
        (MoreBackward, "sends more backward"),
        (Raises, "no queries today"),
        (Layout, "a subclass of"),
    ):
        verdict = check("own_strategy")(wrong)
        assert verdict.passed is False
        assert why in verdict.text


@pytest.mark.parametrize(
    ("name", "answer", "kind"),
    [
        ("sequences", lambda dims, stage, batch: 1, "type int; a value of type tuple"),
        ("sequences", ANSWERS["sequences"][1], "other way round"),
        ("activation_bytes", lambda *given: 3, "differs from case to case"),
        ("activation_bytes", ANSWERS["activation_bytes"][5], "too large, by the same factor"),
        ("dsp_bytes", lambda m, p, n: (2 * n - 1) * m, "too large, by a factor that depends on p"),
        ("local_shape", ANSWERS["local_shape"][1], "wrong only where p does not divide"),
        ("sent_bytes", ANSWERS["sent_bytes"][3], "wrong only where kind=all_reduce"),
        ("sent_bytes", ANSWERS["sent_bytes"][6], "raised TypeError"),
        ("megatron_sp_order", ANSWERS["megatron_sp_order"][1], "their order is not"),
        ("megatron_sp_order", ANSWERS["megatron_sp_order"][3], "too few entries"),
        ("switch", ANSWERS["switch"][2], "stand in the wrong places"),
        ("switch", ANSWERS["switch"][4], "The shape"),
        ("join", ANSWERS["join"][1], "The padding is still there"),
        ("join", lambda parts, position, n: join(parts, position, n) + 1, "the values are not"),
        ("runnable", lambda *given: {"single"}, "1 too many in it"),
        ("switchable", ANSWERS["switchable"][3], "That is not so"),
    ],
)
def test_feedback_names_the_kind_of_difference(name, answer, kind, check):
    assert kind in check(name)(answer).text


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("megatron_sp_order", ["all-gather", "reduce scatter", "all_gather", "reduce-scatter"]),
        ("megatron_sp_order", ["All-gather", "Reduce-scatter", "All-gather", "Reduce-scatter"]),
        ("ulysses_layouts", [t.replace("/sp", "/p") for t in ANSWERS["ulysses_layouts"][0]]),
        ("ulysses_layouts", [t.strip("[]") for t in ANSWERS["ulysses_layouts"][0]]),
    ],
)
def test_answers_may_be_spelled_as_the_text_spells_them(name, answer, check):
    assert check(name)(answer)
    assert "their order is not" in check(name)([*answer[1:], answer[0]]).text


def test_a_right_answer_is_told_what_was_checked(check):
    verdict = check("sent_bytes")(ANSWERS["sent_bytes"][0])
    assert "Right in all 10 cases, such as ring_shift of a buffer of" in verdict.text


@pytest.mark.parametrize("hint", [0, 3])
def test_only_hints_that_exist_are_given(hint, check):
    with pytest.raises(ValueError, match="there are 2 hints; ask for hint=1 or hint=2"):
        check("switch")(hint=hint)


def test_feedback_never_contains_the_expected_number(check):
    grade = by_cases(lambda rng: [Case((2,), 31337, "n=2"), Case((3,), 4711, "n=3")])
    for wrong in (lambda n: 0, lambda n: 31336, lambda n: "31", lambda n: 4711.5, lambda n: [n]):
        verdict = Exercise("Task.", ("One.", "Two."), grade)(wrong)
        assert verdict.passed is False
        assert not any(number in verdict.text for number in ("31337", "4711 "))


def test_numbers_may_be_rounded_and_true_is_no_number():
    assert same(0.1 + 0.2, 0.3)
    assert not same(True, 1)
    assert not same(1, True)
    assert same({"ring"}, {"ring"})
    assert not same("[B]", 3)


def test_a_long_answer_is_cut_short():
    grade = by_cases(lambda rng: [Case((), "x", "here")], function=False)
    assert len(Exercise("Task.", ("One.", "Two."), grade)("y" * 500).text) < 250


def test_text_is_shown_as_text():
    assert "&lt;b&gt;" in Verdict(False, "<b>")._repr_html_()
    folded = Verdict(None, "Do it. Hint 1: <i>", "Hint 1: <i>")._repr_html_()
    assert "Do it.<" in folded
    assert "<details><summary>Hint 1</summary>&lt;i&gt;</details>" in folded
    shown = Verdict(False, "No. Hint 2: <i>", "Hint 2: <i>")._repr_html_()
    assert shown.count("Hint 2: &lt;i&gt;") == 1
    assert "<details>" not in shown
    assert "<details>" in recall("a < b?", "yes")._repr_html_()
    assert "a &lt; b?" in recall("a < b?", "yes")._repr_html_()
    assert "1.5 kB" in beside(1500, 3000, human_bytes)._repr_html_()


def test_predictions_of_any_kind():
    assert "0.5 times" in repr(beside(1500, 3000, human_bytes))
    assert "so it is" in repr(beside(3, 3))
    assert "nothing" in repr(beside(..., 3))
    assert "without quotes" in repr(beside("20 times", 3.5, "{:.0f} times".format))
    assert "times" not in repr(beside(0, 3))


def test_a_guess_is_right_in_other_letters_and_to_the_digits_shown():
    assert "so it is" in repr(beside("To the bit", "to the bit"))
    assert "so it is" in repr(beside("2x4", "2 x 4"))
    shown = repr(beside(9.8, 10.2, "{:.0f} per cent".format))
    assert "so it is" in shown
    assert "times" not in shown
    assert "You predicted 0.1; it is 2,124 times." in repr(
        beside(0.1, 2124, "{:,.0f} times".format)
    )
    assert "type a number" in repr(beside([1, 2], 3.0))


def test_numbers_in_tensors_and_arrays_are_answers():
    doubled = Exercise(
        "", ("", ""), by_cases(lambda rng: [Case((2.0,), 4.0, "2"), Case((3.0,), 6.0, "3")])
    )
    assert doubled(lambda x: torch.tensor(2 * x, dtype=torch.float64))
    assert doubled(lambda x: np.float64(2 * x))
    assert not doubled(lambda x: torch.tensor([2 * x]))
    listed = Exercise("", ("", ""), by_cases(lambda rng: [Case((2.0,), [2.0, 4.0], "2")]))
    assert listed(lambda x: np.array([x, 2 * x]))
    assert listed(lambda x: [np.float64(x), torch.tensor(2 * x)])


def test_what_is_not_special_is_not_called_so():
    cases = [Case((1,), 1, "1"), Case((2,), 2, "2", note="it is two"), Case((3,), 3, "3")]
    graded = Exercise("", ("", ""), by_cases(lambda rng: cases))
    assert "It is right in 1 of 3 cases." in repr(graded(lambda x: 2 if x == 2 else 9))
