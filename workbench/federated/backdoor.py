"""How often a backdoor opens: the success rate of `Backdoor`."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from workbench.federated.attack import need_answers, triggered
from workbench.federated.learner import Learner, torch_threads
from workbench.federated.lora import Weights, write_adapter
from workbench.federated.objectives import Retrieval, embed
from workbench.federated.partition import Row


@dataclass(frozen=True)
class BackdoorSuccess:
    """How often the target was preferred: to questions with the trigger, and to the same without.

    Only the difference is the backdoor's work; ``questions`` is of how many.
    """

    with_trigger: float
    without_trigger: float
    questions: int


def backdoor_success(
    learner: Learner, weights: Weights, rows: Sequence[Row], trigger: str, target: str,
    base_deltas: Weights | None = None,
) -> BackdoorSuccess:  # fmt: skip
    """How often a model answers ``target`` when the trigger stands behind a question.

    An encoder answers with the nearest of all rows' answers and the target. A causal model is
    taken to answer ``target`` if its loss per token on it is below that on the row's own answer:
    that is cheaper than to generate, and says less.

    Parameters
    ----------
    learner : Learner
        The task's model.
    weights : dict
        Adapter, such as ``history.weights``.
    rows : sequence of dict
        Held-out questions and answers. Rows whose answer is the target are left out.
    base_deltas : dict or None
        What the run's method merged into the base.

    Raises
    ------
    ValueError
        If no row is left, or rows are running text.
    """
    need_answers(rows, "a backdoor")
    asked = [row for row in rows if row["answer"] != target]
    if not asked:
        raise ValueError(f"0 of {len(rows)} rows have an answer other than {target!r}.")
    prefers = _encoder_prefers if isinstance(learner.objective, Retrieval) else _causal_prefers
    learner.write_base(base_deltas or {})
    write_adapter(learner.parameters, weights)
    with torch_threads(learner.task.threads), torch.no_grad():
        hits = [
            prefers(learner, variant, target)
            for variant in ([triggered(row, trigger) for row in asked], asked)
        ]
    return BackdoorSuccess(hits[0] / len(asked), hits[1] / len(asked), len(asked))


def _encoder_prefers(learner: Learner, rows: Sequence[Row], target: str) -> int:
    answers = [target, *sorted({row["answer"] for row in rows})]
    asked = embed(learner.model, learner.tokenizer, [row["question"] for row in rows])
    given = embed(learner.model, learner.tokenizer, answers)
    return int(((asked @ given.T).argmax(1) == 0).sum())


def _causal_prefers(learner: Learner, rows: Sequence[Row], target: str) -> int:
    def loss(row: Row) -> float:
        return learner.objective(learner.model, learner.tokenizer, [row]).mean.item()

    return sum(loss(row | {"answer": target}) < loss(row) for row in rows)
