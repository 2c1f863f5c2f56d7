"""Questions that nobody grades: recalling the notebook before, predicting what comes."""

import html
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

from workbench.exercises.checking import boxed, letters


@dataclass(frozen=True)
class Recall:
    """A question with its answer folded away: answer aloud first, then click.

    Examples
    --------
    >>> recall("How many bytes has a float32?", f"{32 // 8}")
    How many bytes has a float32? (think first) 4
    """

    question: str
    answer: str

    def __repr__(self) -> str:
        return f"{self.question} (think first) {self.answer}"

    def _repr_html_(self) -> str:
        question, answer = html.escape(self.question), html.escape(self.answer)
        return f"<details><summary>{question}</summary><p>{answer}</p></details>"


@dataclass(frozen=True)
class Comparison:
    """A prediction beside what was found."""

    text: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return boxed(self.text, "#0072B2")


def recall(question: str, answer: str) -> Recall:
    """Ask a question whose answer, computed by the cell, opens with a click."""
    return Recall(question, answer)


def beside(prediction: Any, found: Any, say: Callable[[Any], str] = str) -> Comparison:
    """Put a prediction beside the result.

    Parameters
    ----------
    prediction : object
        What the reader typed; ``None`` if nothing.
    found : object
        The result, of the same type.
    say : callable
        How either is written, such as `human_bytes`.

    Examples
    --------
    >>> beside(200, 100), beside(None, 3), beside("ring", "dsp")
    (You predicted 200; it is 100. Your guess is 2 times as large.,
     You predicted nothing; it is 3. Type a guess above and run again: guessing first helps.,
     You predicted ring; it is dsp.)
    """
    if prediction is None or prediction is ...:
        return Comparison(
            f"You predicted nothing; it is {say(found)}. "
            "Type a guess above and run again: guessing first helps."
        )
    if prediction == found or (isinstance(found, str) and letters(prediction) == letters(found)):
        return Comparison(f"You predicted {say(found)}, and so it is.")
    if isinstance(found, Real) and not isinstance(prediction, Real):
        return Comparison(f"You typed {prediction!r}; type a number, without quotes and units.")
    guess = say(prediction)
    if guess == say(found):
        return Comparison(f"You predicted {guess}, and so it is, as far as it is shown.")
    if isinstance(prediction, Real) and guess == say(0):  # it is not 0, only small
        guess = f"{prediction:g}"
    text = f"You predicted {guess}; it is {say(found)}."
    numbers = all(isinstance(v, int | float) and v > 0 for v in (prediction, found))
    if numbers and not isinstance(found, bool):
        ratio = prediction / found
        text += f" Your guess is {ratio:.3g} times as large."
    return Comparison(text)
