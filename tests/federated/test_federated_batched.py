"""Several clients' adapters in one step: the same gradients and runs, to rounding."""

import dataclasses

import numpy as np
import pytest
from small_tasks import linear_task

from workbench.federated import FedAdam, FedProx, LabelFlip, SecAggPlus, simulate
from workbench.federated.batched import MOST, adapters, train_together
from workbench.federated.history import History, same_weights
from workbench.federated.learner import Learner
from workbench.federated.partition import clients_of

#: How far the two ways may be apart in a number.
CLOSE = 1e-5


def apart(one, other):
    assert one.keys() == other.keys()
    return max(np.abs(one[name] - other[name]).max() for name in one)


@pytest.fixture(params=["questions", "texts", "conversations"])
def kind(request, task, text_task):
    """Each objective, by plain gradient steps, whose change is the learning rate times these."""
    chat = dataclasses.replace(task, model=text_task.model)
    chosen = {"questions": task, "texts": text_task, "conversations": chat}[request.param]
    return dataclasses.replace(chosen, optimizer="sgd", lr=1.0, local_steps=1, clients_per_round=4)


def test_gradients_are_those_of_each_client_alone(kind):
    learner = Learner(kind)
    start = learner.start()
    moved = {n: a + np.float32(0.01) for n, a in start.items()}  # with B = 0, A has no gradient
    together = train_together(learner, dict.fromkeys(range(4), moved), 1)
    assert list(together) == [0, 1, 2, 3]
    for client, (weights, loss) in together.items():
        alone, its_loss = learner.train(moved, client, 1)
        assert apart(weights, alone) < CLOSE < apart(weights, moved)
        assert loss == pytest.approx(its_loss, abs=CLOSE)


def test_whole_runs_are_equal_to_rounding(task, history):
    batched = simulate(task, batched=True, progress=False)
    assert batched.engine == "batched"
    assert History.engine == history.engine == "messages"
    assert apart(batched.weights, history.weights) < 1e-3  # AdamW divides by tiny gradients
    for mine, theirs in zip(batched.rounds, history.rounds, strict=True):
        assert mine.trained == pytest.approx(theirs.trained, abs=1e-4)
        assert mine.eval_loss == pytest.approx(theirs.eval_loss, abs=1e-4)
        assert (mine.uplink_bytes, mine.downlink_bytes) == (
            theirs.uplink_bytes,
            theirs.downlink_bytes,
        )


def test_small_clients_make_their_smaller_batches(task):
    """A client that has fewer rows than a batch trains on what it has."""
    kept = [row for i, row in enumerate(task.dataset) if i < 8 or row["client"] != "site 0"]
    uneven = dataclasses.replace(
        task, dataset=kept, batch_size=8, optimizer="sgd", lr=0.1, clients_per_round=4
    )
    sizes = [len(client.train) for client in clients_of(uneven)]
    assert min(sizes) < 8 < max(sizes)
    one, other = (simulate(uneven, batched=b, progress=False) for b in (True, False))
    assert apart(one.weights, other.weights) < CLOSE
    assert len(one.rounds[0].trained) == 4


def test_attacks_and_more_clients_than_fit_a_step(task, monkeypatch):
    monkeypatch.setattr("workbench.federated.batched.MOST", 3)
    assert MOST > 3
    bad = dataclasses.replace(
        task, clients_per_round=4, attack=LabelFlip((0,)), method=FedAdam(), optimizer="sgd", lr=0.1
    )
    one, other = (simulate(bad, batched=b, progress=False) for b in (True, False))
    for mine, theirs in zip(one.rounds, other.rounds, strict=True):
        assert mine.trained == pytest.approx(theirs.trained, abs=1e-4)


def test_the_model_is_itself_again(task):
    learner = Learner(task)
    before, _ = learner.train(learner.start(), 0, 1)
    train_together(learner, {0: learner.start(), 1: learner.start()}, 1)
    after, _ = learner.train(learner.start(), 0, 1)
    assert same_weights(before, after)
    stacked = {n: p.detach()[None] for n, p in learner.parameters.items()}
    with pytest.raises(RuntimeError, match="on purpose"), adapters(learner, stacked):
        raise RuntimeError("on purpose")
    assert not any("forward" in vars(module) for module in learner.model.modules())


def test_a_round_trains_once_and_leaves_nothing(task, monkeypatch):
    calls = []

    def counted(learner, sent, number):
        calls.append((number, sorted(sent)))
        return train_together(learner, sent, number)

    monkeypatch.setattr("workbench.federated.batched.train_together", counted)
    simulate(task, batched=True, progress=False)
    assert [number for number, _ in calls] == [1, 2]
    assert all(len(clients) == 3 for _, clients in calls)


def test_a_client_that_cannot_train_is_left_out_as_it_is_alone(task, monkeypatch):
    drawn_from = Learner.drawn_from

    def broken(self, client, *when):
        if client == 1:
            raise ValueError("its disk is full")
        return drawn_from(self, client, *when)

    monkeypatch.setattr(Learner, "drawn_from", broken)
    task = dataclasses.replace(task, clients_per_round=4)
    alone, together = (simulate(task, batched=b, progress=False) for b in (False, True))
    assert [r.failed for r in together.rounds] == [r.failed for r in alone.rounds]
    assert list(together.rounds[0].failed) == ["site 1"]
    assert apart(alone.weights, together.weights) < CLOSE


@pytest.mark.parametrize(
    ("changes", "options", "text"),
    [
        ({"method": FedProx()}, {}, "FedProx.*FedAvg, FedAdam, FedYogi only"),
        ({"tune": "full"}, {}, "tune='full'"),
        ({}, {"engine": "ray"}, "engine='ray'"),
        ({}, {"run_dir": "somewhere"}, "keeps no rounds"),
        ({"secure_aggregation": SecAggPlus()}, {}, "answer message by message"),
    ],
)
def test_what_it_does_not_compute_is_refused(task, tmp_path, changes, options, text):
    if "run_dir" in options:
        options = {"run_dir": tmp_path}
    with pytest.raises(ValueError, match=text):
        simulate(dataclasses.replace(task, **changes), batched=True, progress=False, **options)
    with pytest.raises(ValueError, match="model='linear'"):
        simulate(linear_task(), batched=True, progress=False)
