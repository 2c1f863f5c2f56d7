"""What a run has done: the tables agree with its rounds, F1 and fairness with their formulas."""

import dataclasses
from math import exp

import numpy as np
import pytest
from small_tasks import linear_task

from workbench.datasets import load
from workbench.federated import (
    FlexLora,
    SignFlip,
    evaluate,
    fairness,
    forgetting,
    report,
    simulate,
)
from workbench.federated.evaluation import _Measured, _scores, plain_english
from workbench.federated.learner import Learner
from workbench.federated.objectives import Text


@pytest.fixture(scope="module")
def told(history):
    return report(history, plain_rows=6)


def test_the_tables_are_of_the_start_and_of_the_end(told, history):
    for when, evaluation in (("before", history.start), ("after", history.rounds[-1].evaluation)):
        for name, expected in evaluation.clients.items():
            row = told.clients.loc[(name, when)]
            assert {key: row[key] for key in expected} == expected
            assert row["perplexity"] == exp(expected["loss"])
        overall, losses = told.overall.loc[when], [e["loss"] for e in evaluation.clients.values()]
        assert overall["loss"] == pytest.approx(evaluation.loss, rel=1e-12)
        assert overall["worst"] == max(losses)
        assert overall["spread"] == pytest.approx(np.std(losses))
    assert told.samples is None
    assert told.plain["predictions"].tolist() == [6, 6]
    assert told.plain.loc["before", "loss"] != told.plain.loc["after", "loss"]


METHODS = {"flora": "flora", "local head": "local-head", "ranks": FlexLora((2, 1))}


@pytest.mark.parametrize("name", METHODS)
def test_each_client_is_measured_with_the_model_that_it_uses(name, task):
    """With what was merged into the base, blocks of its own, or the first ranks alone."""
    own = dataclasses.replace(task, rounds=1, eval_examples=3, method=METHODS[name])
    run = simulate(own, progress=False)
    clients = report(run, plain_rows=2).clients.xs("after", level="when")
    for client, expected in run.rounds[-1].evaluation.clients.items():
        assert clients.loc[client, "loss"] == expected["loss"]


def test_a_linear_classifier_is_measured_too_but_reads_no_english():
    task = linear_task()
    done = simulate(task, progress=False)
    assert evaluate(task, done.weights) == done.rounds[-1].evaluation
    tables = report(done)
    assert tables.overall.loc["after", "loss"] == pytest.approx(done.rounds[-1].eval_loss)
    assert tables.plain.empty
    with pytest.raises(ValueError, match="no plain English to forget"):
        forgetting(done)


def test_a_question_whose_answer_stands_alone_is_no_prediction(task):
    learner, rows = Learner(task), [row for row in task.dataset if row["client"] == "site 0"]
    many = [row | {"question": f"{i} {row['question']}", "answer": f"{i} {row['answer']}"}
            for i in range(4) for row in rows][:65]  # fmt: skip
    sizes = [len(batch) for batch, _ in learner.losses(many, learner.objective)]
    assert sizes == [63, 2]
    assert [len(batch) for batch, _ in learner.losses(many[:64], learner.objective)] == [64]
    assert learner.losses(many[:1], learner.objective) == []
    assert learner.losses([], learner.objective) == []


def test_f1_is_the_mean_over_what_was_right_or_chosen_somewhere():
    """Precision and recall of a, b, c and d, which was chosen and never right."""
    part = _Measured(4.0, list("aaabc"), list("aabdc"))
    a, b, c = 2 * 1 * (2 / 3) / (1 + 2 / 3), 0.0, 1.0
    found = _scores([part])
    assert found["f1"] == pytest.approx((a + b + c + 0) / 4)
    assert (found["accuracy"], found["loss"], found["predictions"]) == (0.6, 0.8, 5)
    twice = _scores([part, _Measured(1.0, ["a"], ["a"])])
    assert (twice["loss"], twice["predictions"]) == (pytest.approx(5 / 6), 6)


def test_few_clients_have_a_worst_one_and_many_a_worst_tenth():
    assert fairness({str(i): float(i) for i in range(9)}).worst == 8
    many = fairness({str(i): float(i) for i in range(31)})
    assert (many.worst, many.clients) == (np.mean([30, 29, 28, 27]), 4)
    with pytest.raises(ValueError, match="0 clients"):
        fairness({})
    with pytest.raises(ValueError, match="no numbers, of a"):
        fairness({"a": float("nan"), "b": 1.0})


def test_a_run_that_went_badly_is_measured_all_the_same():
    bad = linear_task(attack=SignFlip((0,), scale=1e6), max_update_norm=1e12, optimizer="sgd")
    told = report(simulate(dataclasses.replace(bad, lr=0.5), progress=False))
    assert told.overall.loc["after", "loss"] > 710
    assert told.overall.loc["after", "perplexity"] == float("inf")
    with pytest.raises(ValueError, match="plain_rows=1; it is a whole number of at least 2"):
        report(simulate(linear_task(rounds=1), progress=False), plain_rows=1)


def test_plain_english_is_of_another_data_set_and_held_out(task):
    train = {row["text"] for row in load("sotu") if row["split"] == "train"}
    found = {row["text"] for row in plain_english(task, 40)}
    assert len(found) == 40
    assert found.isdisjoint(train)
    other = plain_english(dataclasses.replace(task, model="some/lm", dataset="sotu"), 5)
    asked = {f"{r['question']} {r['answer']}" for r in load("chatterbot") if r["split"] == "test"}
    assert {row["text"] for row in other} <= asked
    assert plain_english(task, 3) == plain_english(task, 3)


def test_a_causal_model_is_measured_token_by_token_and_speaks(text_task):
    wild = dataclasses.replace(text_task, lr=0.5, local_steps=8, eval_examples=2, rounds=1)
    run = simulate(wild, progress=False)
    told = report(run, ["red stone"], plain_rows=3)
    learner = Learner(wild)
    texts = plain_english(wild, 3)
    expected = Text()(learner.model, learner.tokenizer, texts)  # before any adapter is written
    assert told.plain.loc["before", "loss"] == pytest.approx(expected.mean.item(), rel=1e-6)
    assert told.plain.loc["before", "predictions"] == expected.count > 50
    assert told.plain.loc["after", "loss"] != told.plain.loc["before", "loss"]
    assert told.plain.equals(forgetting(run, plain_rows=3))
    assert list(told.samples.columns) == ["prompt", "before", "after"]
    assert told.samples.loc[0, "before"] != told.samples.loc[0, "after"]
