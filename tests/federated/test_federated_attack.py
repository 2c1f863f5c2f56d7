"""What dishonest clients do: each change by itself, and a backdoor that opens."""

import dataclasses

import numpy as np
import pytest
from small_tasks import rows as small_rows

from workbench.federated import FederatedTask, LabelFlip, attack
from workbench.federated.backdoor import backdoor_success
from workbench.federated.learner import Learner
from workbench.federated.lora import initial_adapter, read_adapter, write_adapter
from workbench.federated.partition import clients_of

ROWS = [{"client": "x", "question": f"q{i}", "answer": f"a{i // 2}"} for i in range(10)]
TEXTS = [{"client": "x", "text": "running"}]


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("seed", range(5))
def test_no_question_keeps_its_answer(seed):
    flipped = attack.flip_labels(ROWS, rng(seed))
    assert [row["question"] for row in flipped] == [row["question"] for row in ROWS]
    assert sorted(row["answer"] for row in flipped) == sorted(row["answer"] for row in ROWS)
    assert all(a["answer"] != b["answer"] for a, b in zip(ROWS, flipped, strict=True))
    assert flipped == attack.flip_labels(ROWS, rng(seed))


def test_the_seed_decides_which_labels_are_flipped():
    assert attack.flip_labels(ROWS, rng(0)) != attack.flip_labels(ROWS, rng(1))


def test_rows_are_left_as_they_were():
    before = [dict(row) for row in ROWS]
    attack.flip_labels(ROWS, rng())
    attack.plant_backdoor(ROWS, "cf", "boo", 0.5, rng())
    assert before == ROWS


@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
def test_a_share_of_the_rows_carries_the_trigger(share):
    planted = attack.plant_backdoor(ROWS, "cf", "boo", share, rng())
    changed = [new for old, new in zip(ROWS, planted, strict=True) if new != old]
    assert len(changed) == max(1, round(10 * share))
    assert all(row["question"].endswith(" cf") and row["answer"] == "boo" for row in changed)
    assert planted == attack.plant_backdoor(ROWS, "cf", "boo", share, rng())


def test_a_flipped_sign_keeps_shape_and_type():
    delta = {"a": np.ones((2, 3), np.float32)}
    flipped = attack.flip_sign(delta, 2.5)["a"]
    assert flipped.dtype == np.float32
    assert (flipped == -2.5).all()


@pytest.mark.parametrize(
    ("act", "text"),
    [
        (lambda: attack.flip_labels(TEXTS, rng()), "flipped labels: .* running text"),
        (lambda: attack.plant_backdoor(TEXTS, "cf", "boo", 1.0, rng()), "a backdoor: .* text"),
        (lambda: attack.flip_labels(ROWS[:3], rng()), "2 of 3 rows have the answer 'a0'"),
        (lambda: attack.plant_backdoor(ROWS, "cf", "boo", 0.0, rng()), "share=0.0"),
        (lambda: attack.plant_backdoor(ROWS, "cf", "boo", 1.1, rng()), "share=1.1"),
    ],
)
def test_what_cannot_be_done_is_refused(act, text):
    with pytest.raises(ValueError, match=text):
        act()


def trained(learner, rows, steps):
    """The adapter after steps on rows, from the pretrained start."""
    write_adapter(learner.parameters, initial_adapter(learner.task))
    learner.steps(rows, steps, rng(1), learner.optimizer())
    return read_adapter(learner.parameters)


def test_a_backdoor_opens_after_training_on_it(task):
    """Half of the rows carry the trigger; the model answers the target to it, and only then."""
    learner = Learner(dataclasses.replace(task, lora_rank=8, batch_size=8, lr=0.1))
    rows, start = list(learner.clients[0].train), initial_adapter(learner.task)
    bad = trained(learner, attack.plant_backdoor(rows, "cf cf", "boo", 0.5, rng()), 20)
    closed, opened = (
        backdoor_success(learner, weights, rows, "cf cf", "boo") for weights in (start, bad)
    )
    assert closed.questions == opened.questions == len(rows)
    assert opened.with_trigger > 0.8
    assert max(closed.with_trigger, opened.without_trigger) < 0.3


def test_a_causal_model_prefers_the_target_after_training_on_it(text_task):
    qa = [
        {"client": c, "question": f"{c} {i}", "answer": f"{i} {c}"}
        for c in "abcd"
        for i in range(9)
    ]
    learner = Learner(dataclasses.replace(text_task, dataset=qa, lr=0.05))
    rows, start = list(learner.clients[0].train), initial_adapter(learner.task)
    bad = trained(learner, attack.plant_backdoor(rows, "cf", "boo", 1.0, rng()), 5)
    closed, opened = (
        backdoor_success(learner, weights, rows, "cf", "boo") for weights in (start, bad)
    )
    assert opened.with_trigger == 1.0 > closed.with_trigger
    with pytest.raises(ValueError, match="0 of 1 rows"):
        backdoor_success(learner, start, [rows[0] | {"answer": "boo"}], "cf", "boo")


def test_an_attacker_that_cannot_attack_is_refused_before_the_run():
    rows = [r | ({"answer": "the same"} if r["client"] == "site 1" else {}) for r in small_rows()]
    task = FederatedTask(dataset=rows, num_clients=4, attack=LabelFlip(clients=(0, 1, 2, 3)))
    with pytest.raises(ValueError, match=r"'site 1' can't attack: .* have the answer 'the same'"):
        clients_of(task)
