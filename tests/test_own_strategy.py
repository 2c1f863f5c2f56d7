"""Targets in bytes: a strategy is graded by `verify`, and by what it sends."""

import pytest
from answers_own import ByHeads, BySwitch, both

from workbench.exercises import check_by_heads, check_by_switch
from workbench.exercises.checking import Exercise
from workbench.exercises.own_strategy import _GatherAll
from workbench.strategies import Strategy


class Costly(_GatherAll):
    """Right, but sends more than the target."""

    name = "costly"

    @classmethod
    def forward_elements(cls, *given):
        return both(*given)[0]

    @classmethod
    def backward_elements(cls, *given):
        return both(*given)[1]


class Nothing(Strategy):
    name, cuts_sequence = "nothing", True


class NoFormula(ByHeads):
    @classmethod
    def forward_elements(cls, geometry, p, shard, branches):
        return 0


class StaysCut(BySwitch):
    """Refuses the model that the target is about."""

    @classmethod
    def check(cls, geometry, p):
        super().check(geometry, p)
        if p > 1 and geometry.d_model == 32:
            raise ValueError("32 is too wide")


def ask(exercise, answer):
    return Exercise(exercise.task, exercise.hints, exercise.grade)(answer)


@pytest.mark.parametrize(
    ("exercise", "answer"), [(check_by_heads, ByHeads), (check_by_switch, BySwitch)]
)
def test_the_right_strategy_meets_its_target(exercise, answer):
    verdict = ask(exercise, answer)
    assert verdict, verdict
    assert answer.__name__ in verdict.text


@pytest.mark.parametrize(
    ("exercise", "wrong", "why"),
    [
        (check_by_heads, Costly, "on 2 ranks it sends 1.5 times the target"),
        (check_by_heads, Nothing, "'time' is cut while this stage attends along"),
        (check_by_heads, NoFormula, "the closed form says 0"),
        (check_by_heads, 12, "a subclass of"),
        (check_by_switch, ByHeads, "on 2 ranks it sends"),
        (check_by_switch, StaysCut, "does not run the model of the target: 32 is too wide"),
        (check_by_switch, lambda: None, "a subclass of"),
    ],
)
def test_wrong_strategies_are_told_what_is_wrong(exercise, wrong, why):
    verdict = ask(exercise, wrong)
    assert verdict.passed is False
    assert why in verdict.text
    assert exercise.hints[0] in verdict.text
