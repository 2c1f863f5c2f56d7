"""A deployment: the bits of a simulation, who may join, who dies, and nothing left running."""

import contextlib
import dataclasses
import datetime
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
from cryptography.hazmat.primitives import serialization
from small_tasks import rows

from workbench.federated import History, TopK, processes, simulate
from workbench.federated.credentials import Credentials, make_credentials, new_key
from workbench.federated.deploy import main, run_deployment
from workbench.federated.history import same_weights
from workbench.federated.learner import Learner
from workbench.federated.processes import MARK, alive, end_marked, free_ports, marked
from workbench.federated.record import Record, recorded

PATIENT = {"join_timeout_s": 300.0, "round_timeout_s": 300.0}


@pytest.fixture(scope="module")
def pair(task):
    """Two clients that keep something between rounds: what they have not sent yet."""
    changes = {"num_clients": 2, "clients_per_round": 2, "compression": TopK(fraction=0.25)}
    return dataclasses.replace(task, dataset=rows(2), **changes)


class Told:
    """What a deployment tells; does something as soon as a line begins in a certain way."""

    def __init__(self, beginning="nothing", then=None):
        self.lines, self.beginning, self.then = [], beginning, then

    def __call__(self, line):
        self.lines.append(line)
        if line.startswith(self.beginning):
            self.then()

    @property
    def port(self):
        return int(re.search(r"127\.0\.0\.1:(\d+)", self.lines[0])[1])


def process_of(run_dir, *words):
    """The process of a deployment whose command has all the words."""
    found = []
    for process in marked(str(run_dir)):
        with contextlib.suppress(psutil.NoSuchProcess):
            if all(word in " ".join(process.cmdline()) for word in words):
                found.append(process)
    (process,) = found
    return process


def assert_nothing_left(run_dir, port):
    assert list(marked(str(run_dir))) == []
    with socket.socket() as trial:
        assert trial.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.timeout(1800)
def test_a_deployment_goes_on_to_the_same_bits_and_survives_a_killed_node(
    pair, tmp_path, monkeypatch
):
    """Round 1 in a simulation; 2 and 3 in a deployment; a node is killed in the midst of 3."""
    longer = dataclasses.replace(pair, rounds=3)
    run_dir, twin = tmp_path / "run", tmp_path / "twin"
    simulate(dataclasses.replace(pair, rounds=1), run_dir=run_dir, progress=False)
    told = Told(
        "round 2 of 3", lambda: process_of(run_dir, "flower-supernode", "node-1.toml").kill()
    )
    deployed = run_deployment(longer, run_dir, resume=True, tell=told, **PATIENT)
    assert_nothing_left(run_dir, told.port)

    simulated = simulate(pair, run_dir=twin, progress=False)
    second = History.load(run_dir / "round-0002", pair)
    assert same_weights(second.weights, simulated.weights)
    for ours, theirs in zip(second.rounds, simulated.rounds, strict=True):
        assert ours.evaluation == theirs.evaluation
        assert ours.trained == theirs.trained
        assert ours.uplink_bytes == theirs.uplink_bytes
        assert ours.downlink_bytes == theirs.downlink_bytes

    assert list(deployed.rounds[2].failed) == ["site 1"]
    assert list(deployed.rounds[2].trained) == ["site 0"]
    assert list(deployed.rounds[2].evaluation.failed) == ["site 1"]
    train = Learner.train

    def dead(self, weights, client, number, *others, **more):
        if client == 1:
            raise RuntimeError("dead")
        return train(self, weights, client, number, *others, **more)

    monkeypatch.setattr(Learner, "train", dead)
    without = simulate(longer, run_dir=twin, progress=False)
    assert same_weights(deployed.weights, without.weights)


@pytest.mark.timeout(1800)
def test_a_wrong_key_is_refused(pair, tmp_path):
    """Node 1's own key is another one than the SuperLink was told."""
    keys = make_credentials(tmp_path / "keys", 2)
    encoded = new_key().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    keys.node_key(1).write_bytes(encoded)
    told = Told()
    with pytest.raises(RuntimeError, match=r"SuperNode 1 was not let in: its private key"):
        run_deployment(pair, tmp_path / "run", credentials=keys.folder, tell=told, **PATIENT)
    assert_nothing_left(tmp_path / "run", told.port)


@pytest.mark.timeout(1800)
def test_a_dead_superlink_ends_the_run(pair, tmp_path):
    run_dir = tmp_path / "run"
    simulate(dataclasses.replace(pair, rounds=1), run_dir=run_dir, progress=False)
    told = Told("the run has started", lambda: process_of(run_dir, "flower-superlink").kill())
    with pytest.raises(RuntimeError, match=r"the SuperLink ended \(exit code -9\).*--resume"):
        run_deployment(pair, run_dir, resume=True, tell=told, **PATIENT)
    assert_nothing_left(run_dir, told.port)
    assert (run_dir / "round-0001").is_dir()


@pytest.mark.timeout(1800)
def test_ctrl_c_ends_everything(pair, tmp_path):
    (tmp_path / "task.json").write_text(pair.to_json())
    run_dir = tmp_path / "run"
    command = [sys.executable, "-m", "workbench.federated.deploy", "--run-dir", str(run_dir)]
    command += ["--task", str(tmp_path / "task.json")]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **streams) as process:
        try:
            told = Told()
            while "SuperLink on" not in (line := process.stdout.readline()):
                assert line, process.stderr.read()
            told(line)
            link = process_of(run_dir, "flower-superlink")
            assert link.environ()["FLWR_TELEMETRY_ENABLED"] == "0"
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=600)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "stopped; --resume" in errors
    assert_nothing_left(run_dir, told.port)


def test_an_expired_certificate_is_refused_before_anything_starts(pair, tmp_path):
    keys = make_credentials(tmp_path / "keys", 2, valid=datetime.timedelta(days=-1))
    with pytest.raises(ValueError, match=r"ca.crt is valid from .* make new ones"):
        run_deployment(pair, tmp_path / "run", credentials=keys.folder)
    with pytest.raises(ValueError, match=r"node-2 is missing"):
        Credentials(keys.folder).check(3)
    assert not (tmp_path / "run").exists()


def test_private_keys_are_the_owners_alone(tmp_path):
    keys = make_credentials(tmp_path / "keys", 1)
    keys.check(1)
    for path in (keys.key, keys.node_key(0)):
        assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(ValueError, match="valid from"):
        keys.check(1, datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=8))


def test_a_run_is_not_gone_on_with_unless_asked(pair, tmp_path, capsys):
    simulate(dataclasses.replace(pair, rounds=1), run_dir=tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"holds 1 rounds already: resume=True"):
        run_deployment(pair, tmp_path)
    with pytest.raises(ValueError, match=r"join_timeout_s=0"):
        run_deployment(pair, tmp_path, join_timeout_s=0)
    done = dataclasses.replace(pair, rounds=1)
    assert len(run_deployment(done, tmp_path, resume=True).rounds) == 1  # nothing to start
    (tmp_path / "task.json").write_text(done.to_json())
    shutil.rmtree(tmp_path / "logs", ignore_errors=True)
    asked = ["--task", str(tmp_path / "task.json"), "--run-dir", str(tmp_path)]
    assert main([*asked, "--resume"]) == 0
    assert "eval_loss" in capsys.readouterr().out
    assert main(asked) == 1
    assert "--resume" in capsys.readouterr().err


def test_a_resume_of_nothing_begins_nothing(tmp_path, capsys):
    assert main(["--resume", "--run-dir", str(tmp_path)]) == 1
    assert "holds no round to go on from" in capsys.readouterr().err
    (tmp_path / "task.json").write_text("[1, 2]")
    assert main(["--task", str(tmp_path / "task.json")]) == 1
    assert "task.json holds no task" in capsys.readouterr().err
    assert not list(tmp_path.glob("round-*"))


def test_what_a_killed_deployment_left_is_ended(tmp_path, monkeypatch):
    """Also a process that does not listen, and what it has started."""
    monkeypatch.setattr(processes, "GRACE_S", 0.5)
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {stubborn!r}])"
    environment = os.environ | {MARK: str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as parent:
        try:
            deadline = time.monotonic() + 60
            while len(list(marked(str(tmp_path)))) < 2 and time.monotonic() < deadline:
                time.sleep(0.05)
            (child,) = psutil.Process(parent.pid).children()
            end_marked(str(tmp_path))
            assert list(marked(str(tmp_path))) == []
            assert not alive(child.pid)
        finally:
            with contextlib.suppress(psutil.Error):
                child.kill()
            parent.kill()


def test_the_record_says_how_a_run_ended(tmp_path):
    path = tmp_path / "record.json"
    assert Record.read(path) is None

    @recorded(path)
    def fail():
        assert Record.read(path).status == "running"
        raise RuntimeError("too few")

    with pytest.raises(RuntimeError):
        fail()
    found = Record.read(path)
    assert (found.status, found.error, found.pid) == (
        "failed",
        "RuntimeError: too few",
        os.getpid(),
    )
    assert "in fail" in found.details
    with recorded(None):
        pass
    assert list(pathlib.Path(tmp_path).iterdir()) == [path]


def test_ports_are_free_and_different():
    ports = free_ports(5)
    assert len(set(ports)) == 5
    for port in ports:
        with socket.socket() as trial:
            trial.bind(("127.0.0.1", port))
