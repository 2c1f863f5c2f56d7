"""What a run tells while it goes on, and the record that it leaves."""

import dataclasses
import json
import sys

import pytest
from small_tasks import linear_task

from workbench.federated import (
    CentralDP,
    Watch,
    compare_runs,
    keep_samples,
    new_run_dir,
    run_record,
    simulate,
    to_tensorboard,
)
from workbench.federated.history import same_weights
from workbench.federated.learner import Learner
from workbench.federated.progress import messages
from workbench.figures import caption
from workbench.figures.runs import run_curves
from workbench.widgets.dashboard import Dashboard


class Told(Watch):
    """Keeps all that it is told."""

    def __init__(self):
        self.told, self.histories = [], []

    def begin(self, task):
        self.told.append(("begin",))

    def doing(self, number, text):
        self.told.append(("doing", number, text))

    def answered(self, client, metrics):
        self.told.append(("answered", client, metrics))

    def evaluated(self, history):
        self.histories.append(history)
        self.told.append(("evaluated", len(history.rounds)))

    def end(self):
        self.told.append(("end",))


@pytest.fixture(scope="module")
def run(task, tmp_path_factory):
    """A run with a record, what it told, and its history."""
    told = Told()
    folder = tmp_path_factory.mktemp("runs") / "first"
    return folder, told, simulate(task, run_dir=folder, progress=told)


def test_a_watch_is_told_of_every_answer_and_every_round(run, task):
    _, told, history = run
    kinds = [each[0] for each in told.told]
    assert kinds.count("answered") == messages(task, task.rounds)
    assert [each[1] for each in told.told if each[0] == "evaluated"] == [0, 1, 2]
    assert (kinds[0], kinds[-1]) == ("begin", "end")
    trained = [e for e in told.told if e[0] == "answered" and "train_loss" in e[2]]
    last = {client: metrics["train_loss"] for _, client, metrics in trained[-3:]}
    assert last == history.rounds[-1].trained
    assert ("doing", 2, "training") in told.told
    assert told.histories[-1].rounds == history.rounds


def test_progress_is_a_bar_nothing_or_a_watch(task):
    with pytest.raises(ValueError, match="True, False or a Watch"):
        simulate(task, progress="loud")


def test_the_record_says_what_was_run_and_how_it_went(run, task):
    folder, _, history = run
    about = json.loads((folder / "run.json").read_text())
    assert about["task"]["seed"] == task.seed
    assert about["task"]["rounds"] == task.rounds
    assert {"torch", "flwr", "python", "cpu"} <= set(about["machine"])
    assert about["begun"] < about["written"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [0, 1, 2]
    last, done = lines[-1], history.rounds[-1]
    assert last["eval_loss"] == done.eval_loss
    assert last["uplink_bytes"] == done.uplink_bytes
    for name, numbers in done.evaluation.clients.items():
        mine = last["clients"][name]
        assert mine["loss"] == numbers["loss"]
        assert mine.get("train_loss") == done.trained.get(name)
    for name in ("run.json", "metrics.jsonl"):
        assert "silver" not in (folder / name).read_text()  # no row's text


def test_a_resumed_run_has_one_line_a_round_and_its_first_date(run, task, tmp_path):
    simulate(dataclasses.replace(task, rounds=1), run_dir=tmp_path, progress=False)
    begun = json.loads((tmp_path / "run.json").read_text())["begun"]
    broken = (tmp_path / "metrics.jsonl").read_text() + '{"round": 2, "eval_loss": 9.0}\n'
    (tmp_path / "metrics.jsonl").write_text(broken)  # newer than the checkpoint
    told = Told()
    simulate(task, run_dir=tmp_path, progress=told)
    assert [each[1] for each in told.told if each[0] == "evaluated"] == [1, 2]
    assert run_record.read(tmp_path).lines[2]["eval_loss"] == run[2].rounds[1].eval_loss
    assert json.loads((tmp_path / "run.json").read_text())["begun"] == begun


def test_runs_are_compared_by_what_differs(run, task, tmp_path):
    other = dataclasses.replace(task, rounds=1, method="fedprox", privacy=CentralDP(delta=1e-3))
    private = simulate(other, run_dir=tmp_path / "first", progress=False)
    found = compare_runs([run[0], tmp_path / "first"])
    assert list(found.table["run"]) == ["first", "first (2)"]
    assert list(found.table["rounds"]) == [2, 1]
    assert found.table["method"][1].startswith("fedprox(mu=")
    assert "lora_rank" not in found.table
    assert found.table["epsilon"][1] == private.rounds[0].epsilon
    assert found.table["loss at end"][0] == run[2].rounds[-1].eval_loss
    curve = found.curves["first"]
    each = run[2].rounds[0].uplink_bytes
    assert list(curve["uplink_bytes"]) == [0, each, 2 * each]
    figure = run_curves(found.curves, over="uplink_bytes")
    assert list(figure.data[0].x) == list(curve["uplink_bytes"])
    assert list(figure.data[1].y) == list(found.curves["first (2)"]["eval_loss"])
    assert "no verdict" in caption(figure)
    with pytest.raises(ValueError, match="one of"):
        run_curves(found.curves, over="money")
    with pytest.raises(ValueError, match="0 paths"):
        compare_runs([])
    with pytest.raises(ValueError, match="no run's record"):
        compare_runs([tmp_path])


def test_each_new_run_gets_its_own_folder(task, tmp_path):
    folders = {new_run_dir(task, tmp_path) for _ in range(3)}
    assert len(folders) == 3
    assert all(folder.is_dir() and "-fedavg-" in folder.name for folder in folders)


def test_texts_are_kept_when_asked_for(text_task, tmp_path):
    once = dataclasses.replace(text_task, rounds=1)
    history = simulate(once, run_dir=tmp_path, progress=False)
    assert not (tmp_path / "samples.jsonl").exists()
    path = keep_samples(tmp_path, history, ["red green"], max_new_tokens=3)
    (line,) = [json.loads(line) for line in path.read_text().splitlines()]
    assert list(line) == ["prompt", "before", "after"]
    assert line["prompt"] == "red green"


def test_tensorboard_gets_every_number(run, tmp_path):
    """Read back by its own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert to_tensorboard(run[0], tmp_path) == tmp_path
    found, history = EventAccumulator(str(tmp_path)).Reload(), run[2]
    assert found.Scalars("eval_loss")[0].step == 0
    assert found.Scalars("eval_loss")[0].value == pytest.approx(history.start.loss)
    sent = {each.step: each.value for each in found.Scalars("uplink_bytes")}
    assert sent[2] == history.rounds[1].uplink_bytes
    of_one = {each.step: each.value for each in found.Scalars("clients/site 0/loss")}
    loss = history.rounds[0].evaluation.clients["site 0"]["loss"]
    assert of_one[1] == pytest.approx(loss)
    (text,) = (tag for tag in found.Tags()["tensors"])
    assert b'"seed": 3' in found.Tensors(text)[0].tensor_proto.string_val[0]


def test_without_tensorboard_one_line_says_so(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        to_tensorboard(run[0])


def test_the_dashboard_shows_the_run(task, tmp_path):
    board = Dashboard()
    private = dataclasses.replace(task, privacy=CentralDP(delta=1e-3))
    history = board.run(private, run_dir=tmp_path / "run")
    assert board.bar.value == board.bar.max == messages(task, 2)
    assert "Round 2 of 2 is done" in board.head.value
    assert f"{history.rounds[-1].eval_loss:.4f} nat" in board.picture.value
    assert f"epsilon={history.rounds[-1].epsilon:.4g}" in board.sums.value
    for name, loss in history.rounds[-1].trained.items():
        assert name in board.table.value
        assert f"{loss:.3f}" in board.table.value
    before = board.picture.value
    board.evaluated(dataclasses.replace(history, rounds=history.rounds[:1]))
    assert board.picture.value != before


def test_the_dashboard_tells_the_time_left_by_its_own_rounds(task, history):
    board, timed = Dashboard(), [dataclasses.replace(r, seconds=30.0) for r in history.rounds]
    longer = dataclasses.replace(task, rounds=6)
    board.begin(longer)
    board.evaluated(dataclasses.replace(history, rounds=tuple(timed[:1])))
    assert "left" not in board.head.value  # that round was made earlier
    board.evaluated(dataclasses.replace(history, rounds=tuple(timed)))
    assert "about 2 min left" in board.head.value  # 4 rounds of 30 s


def test_stop_is_within_the_step_and_the_run_goes_on_to_the_same_bits(
    task, tmp_path, monkeypatch, history
):
    from workbench.federated.history import same_weights

    board, steps, ends = Dashboard(), Learner.steps, []

    def stopping(self, rows, count, draw, optimizer, gradient=None):
        step = optimizer.step

        def counted(*args):
            ends.append(1)
            if len(ends) == 2 * 3 + 1:  # the first step of round 2's first client
                board.stop()
            return step(*args)

        optimizer.step = counted
        return steps(self, rows, count, draw, optimizer, gradient)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "steps", stopping)
        stopped = board.run(task, run_dir=tmp_path)
    assert len(ends) == 2 * 3 + 1
    assert len(stopped.rounds) == 1
    assert "Stopped after round 1 of 2" in board.head.value
    assert "run_dir=" in board.caption.value
    assert board.button.value == ""
    resumed = Dashboard().run(task, run_dir=tmp_path)
    assert same_weights(resumed.weights, history.weights)


def test_many_clients_are_shown_worst_first(task, history):
    board = Dashboard()
    board.begin(task)
    clients = {f"c{i}": {"loss": float(i), "accuracy": 0.0, "predictions": 1} for i in range(30)}
    start = dataclasses.replace(history.start, clients=clients)
    board.evaluated(dataclasses.replace(history, start=start, rounds=()))
    assert "c29" in board.table.value
    assert "c3<" not in board.table.value
    assert "and 18 more clients" in board.table.value


def test_a_stopped_run_has_the_clients_own_models(tmp_path):
    class Stopping(Dashboard):
        def doing(self, number, text):
            super().doing(number, text)
            if number == 3:
                self.stop()

    task = linear_task(method="ditto", rounds=4)
    left = Stopping().run(task, run_dir=tmp_path)
    whole = simulate(dataclasses.replace(task, rounds=2), progress=False)
    assert len(left.rounds) == 2
    assert left.personal.keys() == whole.personal.keys() != set()
    assert all(same_weights(left.personal[name], mine) for name, mine in whole.personal.items())


def test_a_dashboard_leaves_no_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fedavg = linear_task()
    assert len(Dashboard().run(fedavg, engine="vectorised").rounds) == 2
    with pytest.raises(ValueError, match="engine='mpi'"):
        Dashboard().run(fedavg, engine="mpi")
    assert not list(tmp_path.glob("runs/*"))


def test_one_path_is_compared_with_itself(run):
    assert len(compare_runs(str(run[0])).table) == 1
