"""A run that was cut off goes on to the same bits; what can't be trusted is refused."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file
from small_tasks import linear_task

from workbench.federated import CentralDP, History, TopK, checkpoint, run_record, simulate
from workbench.federated.client_memory import ClientMemory
from workbench.federated.history import same_weights
from workbench.federated.learner import Learner

KINDS = {
    "fedadam": {"method": "fedadam"},
    "scaffold, top-k": {"method": "scaffold", "compression": TopK(0.2)},
    "ditto": {"method": "ditto"},
    "local head": {"method": "local-head"},
    "dp": {"privacy": CentralDP(0.5)},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_cut_off_within_a_round_goes_on_to_the_same_bits(kind, task, monkeypatch, tmp_path):
    """Cut off after the first client of round 3: its own new state must not count."""
    longer = dataclasses.replace(task, rounds=3, clients_per_round=2, **KINDS[kind])
    whole = simulate(longer, progress=False)
    train, seen = Learner.train, []

    def cut(self, weights, client, number, *args, **options):
        seen.append(client)
        if number == 3 and client != seen[-2] and len(set(seen)) > 1:
            raise KeyboardInterrupt
        return train(self, weights, client, number, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "train", cut)
        with pytest.raises(KeyboardInterrupt):
            simulate(longer, run_dir=tmp_path, progress=False)
    resumed = simulate(longer, run_dir=tmp_path, progress=False)
    assert same_weights(resumed.weights, whole.weights)
    assert [r.evaluation for r in resumed.rounds] == [r.evaluation for r in whole.rounds]
    assert resumed.personal.keys() == whole.personal.keys()
    assert all(same_weights(resumed.personal[k], whole.personal[k]) for k in whole.personal)


KILLED = """
import pathlib, sys
from workbench.federated import FederatedTask, simulate
task = FederatedTask.from_json(pathlib.Path(sys.argv[1], "task.json").read_text())
simulate(task, run_dir=pathlib.Path(sys.argv[1], "run"), progress=False)
"""


def last_round(run):
    return max(map(checkpoint.number_of, checkpoint.round_folders(run)), default=-1)


@pytest.mark.timeout(1200)
def test_a_killed_process_leaves_a_run_that_goes_on(task, tmp_path):
    longer = dataclasses.replace(task, rounds=200, method="scaffold")
    (tmp_path / "task.json").write_text(longer.to_json())
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)])
    run, deadline = tmp_path / "run", time.monotonic() + 240
    while last_round(run) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (run / "round-0999.partial-1").mkdir()
    (run / "run.json.partial-1").touch()
    short = dataclasses.replace(longer, rounds=last_round(run) + 1)
    resumed = simulate(
        short, run_dir=run, progress=False
    )  # the dead process's lock is no hindrance
    assert same_weights(resumed.weights, simulate(short, progress=False).weights)
    assert not list(run.glob("*.partial-*"))


@pytest.fixture
def run(task, tmp_path):
    simulate(dataclasses.replace(task, rounds=1), run_dir=tmp_path, progress=False)
    return tmp_path


def test_a_damaged_or_foreign_checkpoint_is_refused(task, run):
    record = run / "round-0001" / "history.json"
    good = record.read_bytes()
    record.write_bytes(good.replace(b"1", b"2", 1))
    with pytest.raises(ValueError, match=r"history.json is damaged .*round before"):
        simulate(task, run_dir=run, progress=False)
    record.unlink()
    with pytest.raises(ValueError, match="damaged or missing"):
        simulate(task, run_dir=run, progress=False)
    record.write_bytes(good)
    manifest = run / "round-0001" / "manifest.json"
    newer = json.loads(manifest.read_text()) | {"format": 99}
    manifest.write_text(json.dumps(newer))
    with pytest.raises(ValueError, match="has format 99"):
        simulate(task, run_dir=run, progress=False)
    for nothing in ("{}", "[]", "null"):
        manifest.write_text(json.dumps(newer | {"format": 1, "sha256": json.loads(nothing)}))
        with pytest.raises(ValueError, match=r"is no checkpoint.*round before"):
            simulate(task, run_dir=run, progress=False)
    manifest.unlink()
    with pytest.raises(ValueError, match="is no checkpoint"):
        simulate(task, run_dir=run, progress=False)


@pytest.mark.parametrize("damage", ["a bit", "the end"])
def test_a_damaged_client_state_is_refused(damage, tmp_path):
    stateful = linear_task(method="scaffold", rounds=2)
    simulate(dataclasses.replace(stateful, rounds=1), run_dir=tmp_path, progress=False)
    state = sorted((tmp_path / "clients").rglob("*.safetensors"))[0]
    good = state.read_bytes()
    flipped = good[:-3] + bytes([good[-3] ^ 0x40]) + good[-2:]
    state.write_bytes({"a bit": flipped, "the end": good[:-8]}[damage])
    with pytest.raises(ValueError, match=rf"{state.name} is damaged: .*Put it back, or delete it"):
        simulate(stateful, run_dir=tmp_path, progress=False)
    state.write_bytes(good)
    assert same_weights(
        simulate(stateful, run_dir=tmp_path, progress=False).weights,
        simulate(stateful, progress=False).weights,
    )


def test_a_record_that_was_cut_off_catches_up(tmp_path, monkeypatch):
    """Killed between a round's checkpoint and its record, in the last round and before."""
    write = run_record.write
    for rounds in (2, 3):
        folder = tmp_path / str(rounds)

        def killed(run_dir, history):
            if len(history.rounds) == 2:
                raise KeyboardInterrupt
            write(run_dir, history)

        with monkeypatch.context() as patch:
            patch.setattr(run_record, "write", killed)
            with pytest.raises(KeyboardInterrupt):
                simulate(linear_task(rounds=rounds), run_dir=folder, progress=False)
        assert len(run_record.read(folder).lines) == 2
        assert len(simulate(linear_task(rounds=rounds), run_dir=folder, progress=False).rounds)
        assert [line["round"] for line in run_record.read(folder).lines] == [*range(rounds + 1)]
        written = (folder / "run.json").read_bytes()
        simulate(linear_task(rounds=rounds), run_dir=folder, progress=False)
        assert (folder / "run.json").read_bytes() == written


def test_rounds_are_counted_beyond_ten_thousand(tmp_path):
    for number in (2, 9999, 10000, 10001):
        checkpoint.round_folder(tmp_path, number).mkdir()
    (tmp_path / "round-10002.partial-7").mkdir()
    found = checkpoint.round_folders(tmp_path)
    assert [checkpoint.number_of(each) for each in found] == [2, 9999, 10000, 10001]


def test_a_new_run_takes_nothing_from_one_whose_rounds_were_deleted(tmp_path):
    simulate(linear_task(method="ditto", seed=1), run_dir=tmp_path, progress=False)
    for folder in tmp_path.glob("round-*"):
        shutil.rmtree(folder)
    other = linear_task(method="ditto", seed=2, clients_per_round=1)
    here, fresh = simulate(other, run_dir=tmp_path, progress=False), simulate(other, progress=False)
    assert here.personal.keys() == fresh.personal.keys()
    assert all(same_weights(here.personal[k], fresh.personal[k]) for k in fresh.personal)


def test_a_damaged_record_and_a_file_for_a_folder(tmp_path):
    simulate(linear_task(rounds=1), run_dir=tmp_path / "run", progress=False)
    (tmp_path / "run" / "run.json").write_bytes(b"\xff[")
    assert len(simulate(linear_task(), run_dir=tmp_path / "run", progress=False).rounds) == 2
    assert json.loads((tmp_path / "run" / "run.json").read_text())["rounds_done"] == 2
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file; give a folder"):
        simulate(linear_task(), run_dir=tmp_path / "file", progress=False)


def test_another_task_a_shorter_one_and_another_machine(task, run, monkeypatch):
    with pytest.raises(ValueError, match=r"differs in batch_size \(4 there, 5 here\)"):
        simulate(dataclasses.replace(task, batch_size=5), run_dir=run, progress=False)
    with pytest.raises(ValueError, match="differs in method"):
        simulate(dataclasses.replace(task, method="fedprox"), run_dir=run, progress=False)
    simulate(task, run_dir=run, progress=False)
    with pytest.raises(ValueError, match=r"rounds=1, but .* has 2 rounds"):
        simulate(dataclasses.replace(task, rounds=1), run_dir=run, progress=False)
    monkeypatch.setattr(checkpoint, "_processor", lambda: "abacus")
    with pytest.raises(ValueError, match=r"abacus.*strict=True"):
        simulate(task, run_dir=run, progress=False, strict=True)
    with pytest.warns(UserWarning, match=r"abacus.*bits may differ"):
        simulate(task, run_dir=run, progress=False)


def test_a_folder_is_one_runs_at_a_time(task, tmp_path):
    with checkpoint.locked(tmp_path), pytest.raises(RuntimeError, match="in use by another run"):
        simulate(task, run_dir=tmp_path, progress=False)


def test_a_client_that_lost_its_state_is_reported(task, tmp_path, monkeypatch):
    longer = dataclasses.replace(task, rounds=1, clients_per_round=4, method="scaffold")
    simulate(longer, run_dir=tmp_path, progress=False)
    for path in (tmp_path / "clients" / "000002").iterdir():
        path.unlink()
    found = simulate(dataclasses.replace(longer, rounds=2), run_dir=tmp_path, progress=False)
    assert list(found.rounds[1].restarted.values()) == ["had the state of round 0, not of 1"]


def test_a_client_keeps_what_two_rounds_back_need(tmp_path):
    memory = ClientMemory(tmp_path, 3)
    assert memory.of(4) == (0, {})
    for number, used in ((1, 0), (2, 1), (5, 2), (6, 5)):
        memory.write(number, {"method/w": np.full(2, number)}, used)
    assert [path.stem for path in sorted(memory.folder.iterdir())] == ["000002", "000005", "000006"]
    assert memory.of(5)[0] == 5
    assert memory.of(4)[0] == 2
    (memory.folder / "000005.safetensors").write_bytes(os.urandom(20))
    with pytest.raises(ValueError, match=r"is damaged: .* delete it"):
        memory.of(5)


def test_what_a_refused_update_left_is_forgotten(tmp_path):
    memory = ClientMemory(tmp_path, 3)
    for number, used in ((3, 0), (5, 3), (6, 3), (7, 3), (8, 7)):  # refused in 5 and 6
        memory.write(number, {"method/w": np.full(2, number)}, used)
        assert memory.of(used)[0] == used
    assert memory.of(6)[0] == 3  # what a replay of round 7 starts from

    task = linear_task(method="scaffold", max_update_norm=0.5, clients_per_round=4, rounds=4)
    simulate(task, run_dir=tmp_path / "run", progress=False)
    state = load_file(tmp_path / "run" / "round-0004" / "state.safetensors")
    assert 0 in state["used"]
    assert max(state["used"]) == 4
    kept = [ClientMemory(tmp_path / "run", i).of(int(n))[1] for i, n in enumerate(state["used"])]
    for name in ("weight", "bias"):
        controls = [next((a for k, a in each.items() if k.endswith(name)), 0.0) for each in kept]
        assert state[f"memory/{name}"] == pytest.approx(sum(controls) / len(controls), abs=1e-6)


def test_a_saved_history_keeps_personal_models_and_epsilon(task, tmp_path):
    own = dataclasses.replace(task, rounds=1, method="ditto", privacy="local-dp")
    history = simulate(own, progress=False)
    again = History.load(history.save(tmp_path / "saved"), own)
    assert again.personal.keys() == history.personal.keys()
    assert len(history.personal) == 3
    for name, mine in history.personal.items():
        assert same_weights(again.adapter(name), mine)
        assert not same_weights(mine, history.weights)
    assert again.rounds[0].epsilon == 1.0
    assert again.privacy.startswith("epsilon=1 at delta=1e-05 (unit: a client; replace")
    assert pathlib.Path(tmp_path, "saved", "personal.safetensors").exists()


def test_a_model_in_a_folder_is_what_its_files_hold(task, tmp_path):
    mine = dataclasses.replace(task, rounds=1, model=str(tmp_path / "model"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"1")
    before = checkpoint.fingerprint(mine)["task"]
    (tmp_path / "model" / "weights").write_bytes(b"22")
    assert len(checkpoint.differences(before, checkpoint.fingerprint(mine)["task"])) == 1
