"""What the tests of all exercises do: a fresh one, the names of all, wrong answers and hints."""

from workbench.exercises.checking import Exercise


def fresh(name, *modules):
    """Return a fresh copy of an exercise: its count of wrong tries stays at zero."""
    found = next(vars(m)[f"check_{name}"] for m in modules if f"check_{name}" in vars(m))
    return Exercise(found.task, found.hints, found.grade)


def names_of(*modules):
    """The names of the modules' exercises, without ``check_``."""
    names = [name for module in modules for name in vars(module)]
    return {name.removeprefix("check_") for name in names if name.startswith("check_")}


def refused_with_hints(exercise, answer):
    """Hold that a wrong answer is refused twice, with another hint each; return the first reply."""
    first, second = (exercise(answer) for _ in range(2))
    assert first.passed is False
    assert exercise.hints[0] in first.text
    assert exercise.hints[1] in second.text
    return first
