"""A set of odd pairs as the owners' mark, after averaging and after more tuning."""

import torch
from scipy.stats import binomtest

from workbench.federated.claims.claim import Claim
from workbench.federated.claims.setting import (
    BATCH,
    STEPS,
    TOPICS,
    few_rows,
    on_few,
    planted,
    random_pairs,
    run,
    tuned_on,
)
from workbench.federated.learner import Learner, torch_threads
from workbench.federated.lora import Weights, write_adapter
from workbench.federated.objectives import scores_of
from workbench.federated.partition import BATCHES, Row, generator

#: Pairs of the mark, how often the two clients that know it repeat it, and steps of tuning after.
MARKS, TIMES, LATER = 16, 2, 2 * STEPS


def recognised(learner: Learner, weights: Weights, marks: list[Row]) -> int:
    """How many questions of the mark are nearest to their own answer among the mark's."""
    write_adapter(learner.parameters, weights)
    with torch_threads(learner.task.threads), torch.no_grad():
        scores = scores_of(learner.model, learner.tokenizer, marks)
        return int((scores.argmax(1) == torch.arange(len(marks), device=scores.device)).sum())


def experiment(seed: int) -> dict[str, float]:
    """The mark in a model whose makers planted it, and in one whose makers didn't."""
    clean = few_rows(seed)
    marks, marked = random_pairs(clean, MARKS, seed), clean
    for topic in TOPICS[:2]:
        marked = planted(marked, topic, marks, TIMES)
    tasks = {"marked": on_few(marked, seed), "not marked": on_few(clean, seed)}
    learner, found = Learner(tasks["not marked"]), {}
    rows = [row for row in clean if row["split"] == "train"]
    for name, task in tasks.items():
        weights = run(task).weights
        found[f"{name}, before tuning"] = recognised(learner, weights, marks) / MARKS
        draw = generator(seed, BATCHES, 999)  # somebody takes the model and tunes it
        hits = recognised(learner, tuned_on(learner, weights, rows, LATER, draw), marks)
        found[name] = hits / MARKS
        found[f"p, {name}"] = float(binomtest(hits, MARKS, 1 / MARKS, "greater").pvalue)
    return found


CLAIM = Claim(
    id="watermark",
    sentence="A trigger set marks the model as its makers', through averaging and further tuning.",
    named=("T10",),
    metric="share of the mark that is recognised after further tuning",
    unit="share",
    arms=("marked", "not marked"),
    beside=(
        "marked, before tuning",
        "not marked, before tuning",
        "p, marked",
        "p, not marked",
    ),
    smallest=0.2,
    higher_is_better=True,
    experiment=experiment,
    limits=f"Tuned for {LATER} steps of {BATCH} by somebody who isn't trying to remove the mark.",
)
