"""The same bits on every engine and on every run; what a round tells; nothing left behind."""

import contextlib
import dataclasses
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import threading
import time

import cloudpickle
import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from workbench.federated import History, client_app, simulate
from workbench.federated.history import same_weights
from workbench.federated.in_process import InProcessGrid, task_identity
from workbench.federated.learner import Learner, torch_threads
from workbench.federated.lora import initial_adapter
from workbench.federated.partition import sample
from workbench.federated.simulation import configured_client, configured_server


def test_a_second_run_is_equal_to_the_bit(task, history):
    again = simulate(task, progress=False)
    assert same_weights(again.weights, history.weights)
    assert again.start == history.start
    assert [r.evaluation for r in again.rounds] == [r.evaluation for r in history.rounds]


def test_the_client_app_travels_to_other_processes(task):
    """Here, where the shape checker wraps what a function defines inside itself, too."""
    configured = configured_client(client_app.app, {"task": task.to_json()})
    assert isinstance(pickle.loads(cloudpickle.dumps(configured)), ClientApp)


def test_the_seed_and_the_rounds_matter(task, history):
    other = simulate(dataclasses.replace(task, seed=4), progress=False)
    assert not same_weights(other.weights, history.weights)
    shorter = simulate(dataclasses.replace(task, rounds=1), progress=False)
    assert shorter.rounds[0].evaluation == history.rounds[0].evaluation
    assert not same_weights(shorter.weights, history.weights)


def test_the_order_in_which_replies_arrive_does_not_matter(task, history, monkeypatch):
    def latest_first(self, ids):
        waiting = [number for number in reversed(self._waiting) if number in set(ids)]
        return [self._answer(self._waiting.pop(number)) for number in waiting[:1]]

    monkeypatch.setattr(InProcessGrid, "pull_messages", latest_first)
    again = simulate(task, progress=False)
    assert same_weights(again.weights, history.weights)
    assert list(again.rounds[-1].trained) == list(history.rounds[-1].trained)


def test_each_round_and_each_client_draws_its_own_batches(task):
    same_rows = [row | {"client": f"site {i}"} for row in task.dataset[:20] for i in range(4)]
    rows = [row | {"split": "train" if i < 60 else "test"} for i, row in enumerate(same_rows)]
    learner = Learner(dataclasses.replace(task, dataset=rows))
    start = initial_adapter(task)
    losses = [learner.train(start, c, n)[1] for c, n in [(0, 1), (0, 2), (1, 1), (0, 1)]]
    assert losses[0] == losses[3]
    assert len(set(losses)) == 3


def test_the_mean_is_weighted_by_training_rows(task):
    """Against an average in float64 that is made here."""
    rows = [row for i, row in enumerate(task.dataset) if row["client"] != "site 0" or i < 10]
    once = dataclasses.replace(task, dataset=rows, rounds=1, clients_per_round=4)
    learner = Learner(once)
    start = initial_adapter(once)
    updates = [learner.train(start, client, 1) for client in range(4)]
    sizes = [len(client.train) for client in learner.clients]
    assert len(set(sizes)) > 1
    found = simulate(once, progress=False)
    for name, array in found.weights.items():
        arrays = [weights[name].astype(np.float64) for weights, _ in updates]
        assert array == pytest.approx(np.average(arrays, axis=0, weights=sizes), abs=1e-7)
    losses = [loss for _, loss in updates]
    assert found.rounds[0].train_loss == pytest.approx(np.average(losses, weights=sizes))


def test_clients_are_sampled_from_the_seed(task):
    samples = [sample(task, number) for number in range(1, 30)]
    assert all(len(set(clients)) == 3 and clients == sorted(clients) for clients in samples)
    assert set().union(*samples) == {0, 1, 2, 3}
    assert samples == [sample(task, number) for number in range(1, 30)]


def test_the_threads_of_torch_are_put_back(task):
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    simulate(dataclasses.replace(task, rounds=1), progress=False)
    assert torch.get_num_threads() == before


def test_an_unknown_engine_is_refused(task):
    with pytest.raises(ValueError, match="one of \\['in-process', 'ray', 'vectorised'\\]"):
        simulate(task, engine="mpi")


def test_progress_is_shown_when_asked(task, capfd):
    simulate(dataclasses.replace(task, rounds=1), progress=True)
    assert "round 1 of 1" in capfd.readouterr().err
    simulate(dataclasses.replace(task, rounds=1), progress=False)
    assert capfd.readouterr().err == ""


def test_each_round_is_left_in_the_run_dir(task, tmp_path):
    longer = dataclasses.replace(task, rounds=4)
    done = simulate(longer, run_dir=tmp_path / "run", progress=False)
    best = min(done.rounds, key=lambda each: each.eval_loss).number
    left = [path.name for path in sorted((tmp_path / "run").glob("round-*"))]
    assert left == sorted({"round-0003", "round-0004", f"round-{best:04d}"})


def test_an_interruption_leaves_the_rounds_that_are_done(task, monkeypatch, tmp_path):
    train = Learner.train

    def interrupted(self, weights, client, number):
        if number == 2:
            raise KeyboardInterrupt
        return train(self, weights, client, number)

    monkeypatch.setattr(Learner, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        simulate(task, run_dir=tmp_path, progress=False)
    left = History.load(tmp_path / "round-0001", task)
    assert len(left.rounds) == 1


def test_flowers_own_state_is_put_back():
    before = TaskIdentity._run_id
    with task_identity():
        assert TaskIdentity.run_id == 1
    assert TaskIdentity._run_id == before


@pytest.fixture
def grid():
    """Two clients that echo what they get; the second has no such action and fails."""
    app = ClientApp()

    @app.train()
    def train(message, context):
        context.state["seen"] = ConfigRecord({"n": len(context.state) + 1})
        message.content["mine"] = ConfigRecord({"partition": context.node_config["partition-id"]})
        return Message(message.content, reply_to=message)

    with task_identity():
        yield InProcessGrid(app, 2, {"key": "value"})


def test_the_grid_copies_what_travels(grid):
    content = RecordDict({"config": ConfigRecord({"a": 1})})
    replies = grid.send_and_receive(
        Message(content, node, MessageType.TRAIN) for node in grid.get_node_ids()
    )
    assert [reply.content["mine"]["partition"] for reply in replies] == [0, 1]
    assert list(content) == ["config"]


def test_the_grid_turns_exceptions_into_errors(grid):
    message = grid.create_message(RecordDict(), MessageType.EVALUATE, 1, "1")
    sent = grid.push_messages([message])
    assert grid.pull_messages(["unknown"]) == []
    (reply,) = grid.pull_messages(sent)
    assert reply.metadata.reply_to_message_id == sent[0]
    assert "No evaluate function registered" in reply.error.reason
    assert grid.pull_messages(sent) == []


def test_the_grid_knows_its_run(grid):
    grid.set_run(Run.create_empty(run_id=5))
    assert grid.run.run_id == 5


def test_a_stopped_server_asks_for_nothing_more(grid):
    stop = threading.Event()
    stop.set()
    app = ServerApp()
    app.main()(lambda grid, context: grid.pull_messages([]))
    server = configured_server(app, {}, stop)
    context = next(iter(grid._contexts.values()))
    with pytest.raises(InterruptedError):
        server(grid, context)


CTRL_C = """
from small_tasks import rows
from workbench.federated import FederatedTask, simulate
task = FederatedTask(dataset=rows(), num_clients=4, rounds=1000, model={model!r})
simulate(task, run_dir={folder!r})
"""


def test_ctrl_c_stops_a_script_at_once(tiny_encoder, tmp_path):
    code = CTRL_C.format(model=tiny_encoder, folder=str(tmp_path))
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parent)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 600
        while not list(tmp_path.glob("round-0002")) and time.monotonic() < deadline:
            time.sleep(0.1)
        for _ in range(3):  # one that comes while an object is finalised is lost
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                _, errors = process.communicate(timeout=40)
                break
    finally:
        process.kill()
    assert "KeyboardInterrupt" in errors
    assert 1 <= len(list(tmp_path.glob("round-*"))) <= 3
