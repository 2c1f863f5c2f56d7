"""What an update and a model tell: tokens by the span check, membership by the fall of the loss."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from small_tasks import WORDS as LINE

from workbench.federated import leakage
from workbench.federated.leakage import in_span, membership, precision, recall, tokens_in_update
from workbench.federated.learner import Learner
from workbench.federated.lora import initial_adapter, read_adapter

WORDS = LINE.split()


@pytest.fixture(scope="module")
def reader(text_task):
    """One SGD step on one row, adapters of rank 8."""
    values = {"local_steps": 1, "batch_size": 1, "optimizer": "sgd", "lora_rank": 8, "lr": 1.0}
    return Learner(dataclasses.replace(text_task, **values))


def update_of(learner, text):
    """The text's tokens, and what a client that trained on it alone sends."""
    row = learner.clients[0].train[0] | {"text": text}
    learner.clients[0] = dataclasses.replace(learner.clients[0], train=(row,))
    start = initial_adapter(learner.task)
    return learner.tokenizer(text)["input_ids"], start, learner.train(start, 0, 1)[0]


def test_fewer_tokens_than_the_rank_are_read_from_the_update(reader):
    true, sent, received = update_of(reader, " ".join(WORDS[:5]))
    found = tokens_in_update(reader, sent, received)
    assert found.directions == len(set(true)) - 1 < found.rank == 8  # the last predicts nothing
    assert recall(found.tokens, true) >= 0.8
    assert precision(found.tokens, true) == 1.0
    assert true[-1] not in found.tokens


def test_as_many_tokens_as_the_rank_hide_each_other(reader):
    true, sent, received = update_of(reader, " ".join(WORDS))
    found = tokens_in_update(reader, sent, received)
    assert (found.tokens, found.directions) == ((), 8)
    assert recall(found.tokens, true) == 0.0


def test_adamw_hides_them_too(reader):
    adamw = Learner(dataclasses.replace(reader.task, optimizer="adamw", lr=0.01))
    true, sent, received = update_of(adamw, " ".join(WORDS[:5]))
    assert recall(tokens_in_update(adamw, sent, received).tokens, true) == 0.0


def test_noise_hides_them_too(reader):
    true, sent, received = update_of(reader, " ".join(WORDS[:5]))
    draw = np.random.default_rng(0)
    noisy = {n: a + 1e-3 * draw.normal(size=a.shape) for n, a in received.items()}
    assert recall(tokens_in_update(reader, sent, noisy).tokens, true) == 0.0


def test_an_unchanged_adapter_tells_nothing(reader):
    start = initial_adapter(reader.task)
    assert tokens_in_update(reader, start, start).tokens == ()


def test_other_models_are_refused(reader):
    with pytest.raises(ValueError, match=r"none of the 1 arrays is an adapter of layers\.0"):
        tokens_in_update(reader, {"a": np.ones(1)}, {"a": np.ones(1)})


def test_members_are_told_by_the_fall_of_their_loss(text_task):
    """Canaries: random words, so that nothing but training tells one half from the other."""
    texts = leakage.canaries(WORDS, 12, 8, np.random.default_rng(1))
    made = [{"client": "a", "text": text} for text in texts]
    learner = Learner(dataclasses.replace(text_task, lora_rank=8, lr=0.05))
    members, others, start = made[:6], made[6:], initial_adapter(learner.task)
    learner.steps(members, 30, np.random.default_rng(0), learner.optimizer())
    told = leakage.membership(learner, start, read_adapter(learner.parameters), members, others)
    assert told.auc >= 0.9
    assert told.low <= told.auc <= told.high
    chance = leakage.membership(learner, start, start, members, others)
    assert chance.auc == chance.low == chance.high == 0.5


def test_an_encoders_rows_are_scored_one_by_one(task):
    learner = Learner(task)
    rows, start = learner.clients[0].train[:6], initial_adapter(task)
    losses = leakage.row_losses(learner, start, rows)
    together = learner.objective(learner.model, learner.tokenizer, rows).mean.item()
    assert losses.shape == (6,)
    assert losses.mean() == pytest.approx(together, rel=1e-5)


def test_the_area_is_scikit_learns():
    draw = np.random.default_rng(0)
    truth, scores = np.repeat([1, 0], [7, 9]), draw.integers(0, 5, 16).astype(float)
    assert leakage._area(truth, scores) == pytest.approx(roc_auc_score(truth, scores))


def test_nothing_is_told_of_nothing(text_task):
    learner = Learner(text_task)
    start = learner.start()
    with pytest.raises(ValueError, match="0 members and 1 others"):
        membership(learner, start, start, [], [{"text": "red"}])
    with pytest.raises(ValueError, match="0 true tokens"):
        recall([1], [])
    with pytest.raises(ValueError, match="not finite"):
        in_span(np.eye(3), np.full((2, 3), np.nan))
