"""How an answer is checked: on several cases, with a kind of difference and hints; no answers."""

import copy
import html
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import isclose
from numbers import Real
from typing import Any

import numpy as np
import torch

#: The cases of an exercise are the same in every session.
SEED = 2403


@dataclass(frozen=True)
class Verdict:
    """What a check says: ``passed`` is None as long as nothing was answered.

    ``text`` ends with the ``hint``, if there is one; on a page, one that wasn't earned by an answer
    is folded away.
    """

    passed: bool | None
    text: str
    hint: str = ""

    def __bool__(self) -> bool:
        return self.passed is True

    def __repr__(self) -> str:
        return f"{_MARKS[self.passed]} {self.text}"

    def _repr_html_(self) -> str:
        said = repr(self).removesuffix(self.hint).strip()
        if self.passed is not None or not self.hint:
            return boxed(said, _EDGES[self.passed], _marked(self.hint))
        head, _, hint = self.hint.partition(": ")
        folded = f"<summary>{_marked(head)}</summary>{_marked(hint)}"
        return boxed(said, _EDGES[None], f"<details>{folded}</details>")


_MARKS = {True: "✔", False: "✘", None: "…"}
_EDGES = {True: "#009E73", False: "#D55E00", None: "#999999"}


@dataclass(frozen=True)
class Case:
    """One question and the library's answer.

    Parameters
    ----------
    given : tuple
        What the learner's function is called with.
    expected : object
        A number, text, list or tensor that the tested library computed.
    where : str
        The case in words, for the feedback.
    p : int or None
        Ranks, so that the feedback can say if an answer is off by something that depends on p.
    note : str
        What is special about it: ``"p does not divide time"``.
    """

    given: tuple
    expected: Any
    where: str
    p: int | None = None
    note: str = ""


#: Says what was checked, or what is wrong; None if there is no answer yet.
Grade = Callable[[Any], Verdict | None]


@dataclass
class Exercise:
    """Call it with an answer; it returns a `Verdict`, never the answer itself.

    Parameters
    ----------
    task : str
        What is asked for, in one sentence.
    hints : tuple of two str
        The first comes with every wrong answer, the second from the second wrong answer on.
    grade : callable
        As `by_cases` makes it.
    wrong_tries : int
        Wrong answers so far.
    """

    task: str
    hints: tuple[str, str]
    grade: Grade = field(repr=False)
    wrong_tries: int = field(default=0, repr=False)

    def __call__(self, answer: Any = None, *, hint: int | None = None) -> Verdict:
        """Check ``answer``; ``hint=2`` gives the second hint at once."""
        if hint not in (None, 1, 2):
            raise ValueError(f"hint={hint!r}: there are 2 hints; ask for hint=1 or hint=2")
        verdict = None if answer is None or answer is ... else self.grade(answer)
        if verdict:
            return verdict
        self.wrong_tries += verdict is not None
        number = hint or (2 if self.wrong_tries > 1 else 1)
        clue = f"Hint {number}: {self.hints[number - 1]}"
        if verdict is None:
            return Verdict(None, f"Not answered yet. {self.task} {clue}", clue)
        return Verdict(False, f"{verdict.text} {clue}", clue)


def by_cases(
    make: Callable[[random.Random], list[Case]],
    slips: Mapping[str, Callable] | None = None,
    *,
    function: bool = True,
) -> Grade:
    """Make a grade that holds an answer against every case.

    Parameters
    ----------
    make : callable
        ``make(rng)`` computes the cases with the tested library; once, as they are the same for
        every answer.
    slips : mapping of str to callable
        Common wrong answers: what to say -> a function that makes this mistake.
    function : bool
        Whether a function is asked for, or one value that holds in every case.
    """
    made = lru_cache(maxsize=1)(lambda: make(random.Random(SEED)))

    def grade(answer: Any) -> Verdict | None:
        if function and not callable(answer):
            return Verdict(False, f"You gave {_kind(answer)}; a function is asked for.")
        cases, found = made(), []
        for case in cases:
            try:
                value = answer(*copy.deepcopy(case.given)) if function else answer
                found.append(plain(value, case.expected))
            except Exception as error:
                said = f"it raised {type(error).__name__}: {error}"
                return Verdict(False, f"Tried {case.where}: {said}.")
        if all(value is None or value is ... for value in found):
            return None
        wrong = [i for i, case in enumerate(cases) if not same(found[i], case.expected)]
        if not wrong:
            such = f"such as {cases[-1].where}"
            return Verdict(True, f"Right in all {len(cases)} cases, {such}.")
        first = wrong[0]
        tried = f"Tried {cases[first].where}: you gave {_short(found[first])}."
        kind = _slip(found, cases, slips or {}) or difference(found, cases, wrong)
        return Verdict(False, f"{tried} {kind}")

    return grade


def plain(value: Any, expected: Any) -> Any:
    """Numbers in a tensor or an array as plain ones, where such are expected; an array as a tensor.

    Examples
    --------
    >>> plain(torch.tensor(2.5), 1.0), plain(torch.tensor([1, 2]), [3, 4])
    (2.5, [1, 2])
    """
    if isinstance(expected, torch.Tensor):
        return torch.as_tensor(value) if isinstance(value, np.ndarray) else value
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        value = value.tolist()
    if all(isinstance(v, list | tuple) for v in (value, expected)) and len(value) == len(expected):
        return [plain(*pair) for pair in zip(value, expected, strict=True)]
    return value


def same(found: Any, expected: Any) -> bool:
    """Equal: numbers up to rounding, tensors in shape and values, lists entry by entry."""
    if isinstance(expected, torch.Tensor):
        alike = isinstance(found, torch.Tensor) and found.shape == expected.shape
        return alike and torch.allclose(found.double(), expected.double(), atol=1e-6)
    if isinstance(expected, bool):
        return isinstance(found, bool) and found == expected
    if isinstance(expected, int | float):
        return _is_number(found) and isclose(found, expected, rel_tol=1e-9)
    if isinstance(expected, list | tuple):
        alike = isinstance(found, list | tuple) and len(found) == len(expected)
        return alike and all(map(same, found, expected))
    if isinstance(expected, str):
        return isinstance(found, str) and letters(found) == letters(expected)
    return bool(found == expected)


def difference(found: list[Any], cases: list[Case], wrong: list[int]) -> str:
    """In what kind the first wrong answer differs, and in which cases answers are wrong."""
    here, expected = found[wrong[0]], cases[wrong[0]].expected
    if _is_number(expected) and _is_number(here):
        kind = _numbers_differ(found, cases, wrong)
    elif isinstance(expected, list | tuple) and isinstance(here, list | tuple):
        kind = _lists_differ(here, expected)
    elif isinstance(expected, torch.Tensor) and isinstance(here, torch.Tensor):
        kind = _tensors_differ(here, expected)
    elif isinstance(expected, set) and isinstance(here, set):
        kind = f"{len(here - expected)} too many in it, {len(expected - here)} missing."
    elif type(here) is not type(expected):
        kind = f"That is {_kind(here)}; {_kind(expected)} is asked for."
    else:
        kind = "That is not so."
    notes = {cases[i].note for i in wrong}
    if len(wrong) == len(cases):
        return kind
    elsewhere = {case.note for i, case in enumerate(cases) if i not in wrong}
    if len(notes) == 1 and not notes & (elsewhere | {""}):
        return f"{kind} It is wrong only where {notes.pop()}."
    return f"{kind} It is right in {len(cases) - len(wrong)} of {len(cases)} cases."


def boxed(text: str, edge: str, below: str = "") -> str:
    """Text, and HTML below it, with a coloured edge, legible in both themes."""
    style = f"border-left: 4px solid {edge}; padding: 4px 10px; margin: 2px 0"
    below = below and f'<div style="margin-top: 4px">{below}</div>'
    return f'<div style="{style}">{_marked(text)}{below}</div>'


def _marked(text: str) -> str:
    """Text as HTML; what stands between backticks is code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _slip(found, cases, slips) -> str:
    for remark, mistake in slips.items():
        if all(same(value, mistake(*case.given)) for value, case in zip(found, cases, strict=True)):
            return remark
    return ""


def _numbers_differ(found, cases, wrong) -> str:
    size = "too large" if found[wrong[0]] > cases[wrong[0]].expected else "too small"
    if any(not _is_number(found[i]) or not cases[i].expected or not found[i] for i in wrong):
        return f"That is {size}."
    ratios = {i: found[i] / cases[i].expected for i in wrong}
    if _all_close(ratios.values()):
        return f"That is {size}, by the same factor in every case that is wrong."
    by_p = {}
    for i in wrong:
        by_p.setdefault(cases[i].p, []).append(ratios[i])
    if None not in by_p and all(map(_all_close, by_p.values())) and len(wrong) > len(by_p):
        return f"That is {size}, by a factor that depends on p alone."
    return f"That is {size}, by a factor that differs from case to case."


def _lists_differ(found, expected) -> str:
    if len(found) != len(expected):
        return f"That has too {'many' if len(found) > len(expected) else 'few'} entries."
    wrong = [i for i, pair in enumerate(zip(found, expected, strict=True)) if not same(*pair)]
    if sorted(map(letters, found)) == sorted(map(letters, expected)):
        return "The entries are right, their order is not."
    tensors = [x for x in (found[wrong[0]], expected[wrong[0]]) if isinstance(x, torch.Tensor)]
    more = _tensors_differ(*tensors) if len(tensors) == 2 else ""
    return f"The first wrong entry is number {wrong[0]}, counted from 0. {more}".strip()


def _tensors_differ(found, expected) -> str:
    if found.shape != expected.shape:
        return f"The shape {tuple(found.shape)} is not what is asked for."
    ordered = [t.double().flatten().sort().values for t in (found, expected)]
    if torch.allclose(*ordered):
        return "The shape and the set of values are right; they stand in the wrong places."
    return "The shape is right, the values are not."


def _all_close(values) -> bool:
    first, *others = values
    return all(isclose(first, other, rel_tol=1e-9) for other in others)


def letters(value) -> str:
    """Without what may be spelled in several ways: "All-gather", "T/p" for "T/sp", brackets."""
    return re.sub(r"/p\b", "/sp", re.sub(r"[]\s_[-]", "", str(value))).lower()


def _is_number(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _kind(value) -> str:
    return "a function" if callable(value) else f"a value of type {type(value).__name__}"


def _short(value) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, list | tuple) and any(isinstance(v, torch.Tensor) for v in value):
        return f"{len(value)} tensors"
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
