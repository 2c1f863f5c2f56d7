"""What a run leaves can be read again, by us and by peft alone."""

import json
import pathlib
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import peft
import pytest
import torch
from small_tasks import linear_task
from transformers import AutoModel

from workbench.federated import (
    Evaluation,
    FlexLora,
    HetLora,
    History,
    compare_runs,
    load_adapter,
    simulate,
)
from workbench.federated.history import same_weights
from workbench.federated.learner import Learner
from workbench.federated.lora import read_adapter, write_adapter


@pytest.fixture(scope="module")
def saved(history, tmp_path_factory):
    return history.save(tmp_path_factory.mktemp("run") / "saved")


def test_what_was_saved_is_read_again(saved, task, history):
    again = History.load(saved, task)
    assert same_weights(again.weights, history.weights)
    assert (again.task, again.start, again.rounds) == (task, history.start, history.rounds)


def test_own_rows_are_not_saved(saved):
    for path in saved.iterdir():
        assert b"silver" not in path.read_bytes()
    with pytest.raises(ValueError, match="own data"):
        History.load(saved)


def test_a_history_is_not_read_as_another_tasks(saved, task):
    assert len(History.load(saved, replace(task, rounds=task.rounds + 1)).rounds) == task.rounds
    with pytest.raises(ValueError, match="another task's run; it differs in seed"):
        History.load(saved, replace(task, seed=task.seed + 1))


def test_peft_opens_the_adapter_without_us(saved, task, history):
    base = AutoModel.from_pretrained(task.model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft's, about transformers 6
        model = peft.PeftModel.from_pretrained(base, saved).eval()
    state = peft.get_peft_model_state_dict(model)
    assert state.keys() == history.weights.keys()
    assert all(np.array_equal(state[name].numpy(), w) for name, w in history.weights.items())


def test_the_opened_model_computes_what_the_run_evaluated(saved, task, history):
    """So scale and places of the adapters are right too, not the arrays alone."""
    learner = Learner(task)
    ours = learner.evaluate(history.weights, 0)
    learner.model = load_adapter(saved).eval()
    learner.parameters = {}
    theirs = Learner.evaluate(learner, {}, 0)
    assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-6)
    name = learner.clients[0].name
    assert ours == history.rounds[-1].evaluation.clients[name]
    assert ours["loss"] != pytest.approx(history.start.clients[name]["loss"], rel=1e-6)


def test_the_tables(saved, task, history):
    frame = history.to_frame()
    assert list(frame["round"]) == [0, 1, 2]
    assert list(frame["eval_loss"]) == [history.start.loss, *(r.eval_loss for r in history.rounds)]
    assert frame["uplink_bytes"].notna().sum() == task.rounds
    clients = history.clients_to_frame()
    assert len(clients) == 3 * task.num_clients
    assert clients["train_loss"].notna().sum() == task.rounds * task.clients_per_round
    read = pd.read_csv(saved / "rounds.csv")
    assert read["eval_loss"].to_numpy() == pytest.approx(frame["eval_loss"].to_numpy())
    assert json.loads((saved / "task.json").read_text())["lora_rank"] == task.lora_rank


@pytest.mark.parametrize("method", [HetLora(ranks=(2, 1)), FlexLora(ranks=(2, 1))])
def test_an_adapter_is_what_its_client_was_evaluated_with(task, method):
    done = simulate(replace(task, method=method, clients_per_round=4), progress=False)
    learner = Learner(done.task)
    for index, name in enumerate(f"site {i}" for i in range(4)):
        found = learner.evaluate(done.adapter(index), index)
        assert found == pytest.approx(done.rounds[-1].evaluation.clients[name])
        assert same_weights(done.adapter(index), done.adapter(name))


@pytest.mark.parametrize("nobody", ["nobody", -1, 4])
def test_an_adapter_of_nobody_is_refused(history, nobody):
    with pytest.raises(ValueError, match=r"no client is .*ids are 0 to 3, their names \['site 0'"):
        history.adapter(nobody)


def test_a_file_is_no_folder(history, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file: give a folder"):
        history.save(tmp_path / "file")


def test_saving_replaces_a_history_and_nothing_else(history, tmp_path):
    history.save(tmp_path / "run")
    history.save(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "draft.txt").write_text("dear")
    with pytest.raises(ValueError, match="holds something else"):
        history.save(tmp_path / "letters")
    assert (tmp_path / "letters" / "draft.txt").exists()


def test_a_failed_save_leaves_the_old_one(history, tmp_path, monkeypatch):
    path = history.save(tmp_path / "run")

    def full(self, folder):
        raise OSError("no space left")

    monkeypatch.setattr(History, "_write", full)
    with pytest.raises(OSError, match="no space"):
        history.save(path)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert (path / "adapter_model.safetensors").exists()


def test_a_failed_rename_puts_the_old_one_back(history, tmp_path, monkeypatch):
    path = history.save(tmp_path / "run")
    rename = pathlib.Path.rename

    def failing(self, target):
        if ".partial" in self.name:
            raise OSError("no such luck")
        return rename(self, target)

    monkeypatch.setattr(pathlib.Path, "rename", failing)
    with pytest.raises(OSError, match="no such luck"):
        history.save(path)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert (path / "adapter_model.safetensors").exists()


def test_the_overall_loss_is_weighted_by_predictions():
    one = {"loss": 1.0, "accuracy": 1.0, "predictions": 3}
    two = {"loss": 3.0, "accuracy": 0.0, "predictions": 1}
    nothing = {"loss": 0.0, "accuracy": 0.0, "predictions": 0}
    found = Evaluation.over({"a": one, "b": two, "c": nothing})
    assert (found.loss, found.accuracy, set(found.clients)) == (1.5, 0.75, {"a", "b"})
    assert np.isnan(Evaluation.over({}).loss)


def test_an_adapter_of_another_shape_is_refused(task, history):
    parameters = Learner(task).parameters
    write_adapter(parameters, history.weights)
    assert same_weights(read_adapter(parameters), history.weights)
    with pytest.raises(ValueError, match="differ from the model's in"):
        write_adapter(parameters, {"other": torch.zeros(1).numpy()})
    short = {name: array[:1] for name, array in history.weights.items()}
    with pytest.raises(ValueError, match="the same lora_rank"):
        write_adapter(parameters, short)


@pytest.mark.parametrize(
    ("name", "text"),
    [("metrics.jsonl", ""), ("metrics.jsonl", "{bad"), ("run.json", "[]"),
     ("run.json", '{"format": 1}')],
)  # fmt: skip
def test_a_damaged_record_is_named(name, text, tmp_path):
    folder = tmp_path / "run"
    simulate(linear_task(rounds=1), run_dir=folder, progress=False)
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match="holds no run's record, or a damaged one"):
        compare_runs(folder)


def test_a_run_dir_has_a_name():
    with pytest.raises(ValueError, match="path of a folder"):
        simulate(linear_task(), run_dir="", progress=False)


def test_a_folder_without_a_history_says_what_to_give(tmp_path):
    for load in (History.load, load_adapter):
        with pytest.raises(FileNotFoundError, match=r"give a folder that `history\.save`"):
            load(tmp_path)
