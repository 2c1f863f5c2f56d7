"""One run of Flower on this machine: its processes, from the first to the last."""

import json
import pathlib
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field

import tomli_w

from workbench.federated.checkpoint import number_of, round_folders
from workbench.federated.client_app import PARTITION, RUN_DIR, STATE_DIR, TASK
from workbench.federated.credentials import Credentials
from workbench.federated.history import RECORD as HISTORY
from workbench.federated.processes import Processes, alive, free_ports
from workbench.federated.record import FAILED, FINISHED, Record
from workbench.federated.server_app import KEEP, RECORD
from workbench.federated.task import FederatedTask

#: File in the run's folder in which the ServerApp says how the run stands.
STANDING = "deployment.json"
#: How long a command of Flower may take, and the ServerApp from its start to its first word [s].
COMMAND_TIMEOUT_S = 300.0
#: How often to look at the processes and at the run's folder [s].
POLL_S = 0.2
#: What a SuperNode says that was not let in; its process's exit code is 1 in all cases of failure.
#: Source: flwr.supercore.exit.ExitCode.SUPERNODE_CONNECTION_ERROR.
NOT_LET_IN = "Exit Code: 305"
#: Called with a line for each thing that happens.
Tell = Callable[[str], None]


@dataclass
class Deployment:
    """One run of Flower: what it consists of, from the first process to the last."""

    task: FederatedTask
    run_dir: pathlib.Path
    home: pathlib.Path
    credentials: Credentials
    timeouts: dict[str, float]
    tell: Tell
    lost: set[int] = field(default_factory=set)
    joined: bool = False
    told: int = -1

    def __post_init__(self):
        self.processes = Processes(self.run_dir, self.home)

    def run(self) -> None:
        """Start everything, wait for the end of the run, and end everything."""
        self.standing.unlink(missing_ok=True)
        try:
            self.start()
            while not self.over():
                time.sleep(POLL_S)
        finally:
            with _uninterrupted():
                self.processes.end()

    @property
    def standing(self) -> pathlib.Path:
        """Where the ServerApp says how the run stands."""
        return self.run_dir / STANDING

    def start(self) -> None:
        """Start the SuperLink, register the nodes' keys, start the nodes and the run."""
        keys, port = self.credentials, free_ports(1)[0]
        tls = ["--ssl-ca-certfile", str(keys.authority), "--ssl-certfile", str(keys.certificate)]
        tls += ["--ssl-keyfile", str(keys.key), "--enable-supernode-auth"]
        offline = "--disable-runtime-dependency-installation"
        address = f"127.0.0.1:{port}"
        link = self.processes.start(
            "superlink",
            ["flower-superlink", "--host", "127.0.0.1", "--port", str(port), offline, *tls],
        )
        self.answers(link, port)
        self.tell(f"SuperLink on {address}, with TLS and node keys")
        connection = {"address": address, "root-certificates": str(keys.authority)}
        config = {"superlink": {"default": "here", "here": connection}}
        (self.home / "config.toml").write_text(tomli_w.dumps(config))
        self.commands(
            {
                f"register-{i}": ["supernode", "register", str(keys.public_key(i)), "here"]
                for i in range(self.task.num_clients)
            }
        )
        for i, node_port in enumerate(free_ports(self.task.num_clients)):
            self.start_node(i, address, node_port)
        self.commands({"run": ["run", str(self.app()), "here"]})
        self.started = time.monotonic()
        self.tell("the run has started")

    def start_node(self, node: int, superlink: str, port: int) -> None:
        """Start a SuperNode with its key, its place and its folder."""
        config = self.home / f"node-{node}.toml"
        place = {PARTITION: node, "num-partitions": self.task.num_clients}
        config.write_text(tomli_w.dumps(place | {STATE_DIR: str(self.run_dir)}))
        command = ["flower-supernode", "--superlink", superlink, "--host", "127.0.0.1"]
        command += ["--port", str(port), "--node-config", str(config)]
        command += ["--root-certificates", str(self.credentials.authority)]
        command += ["--auth-supernode-private-key", str(self.credentials.node_key(node))]
        self.processes.start(f"supernode-{node}", command)

    def app(self) -> pathlib.Path:
        """A Flower app folder: where the apps are, and the run's config."""
        folder = self.home / "federation"
        folder.mkdir()
        config = {TASK: self.task.to_json(), RUN_DIR: str(self.run_dir), KEEP: True}
        config |= {RECORD: str(self.standing), **self.timeouts}
        components = {
            "serverapp": "workbench.federated.server_app:app",
            "clientapp": "workbench.federated.client_app:app",
        }
        app = {"publisher": "workbench", "components": components, "config": config}
        project = {"name": "federation", "version": "1.0.0", "dependencies": []}
        project |= {"description": "A federated task", "license": "Apache-2.0"}
        text = tomli_w.dumps({"project": project, "tool": {"flwr": {"app": app}}})
        (folder / "pyproject.toml").write_text(text)
        return folder

    def answers(self, link: subprocess.Popen, port: int) -> None:
        """Wait until the SuperLink listens."""
        deadline = time.monotonic() + COMMAND_TIMEOUT_S
        while link.poll() is None and time.monotonic() < deadline:
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(POLL_S)
        raise RuntimeError(f"the SuperLink does not answer:\n{self.processes.said('superlink')}")

    def commands(self, commands: dict[str, list[str]]) -> None:
        """Let `flwr` do several things at once, and wait until they are done."""
        for name, arguments in commands.items():
            self.processes.start(name, ["flwr", *arguments])
        for name in commands:
            try:
                code = self.processes.started.pop(name).wait(COMMAND_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                code = f"not done in {COMMAND_TIMEOUT_S:g} s"
            if code != 0:
                said = self.processes.said(name)
                raise RuntimeError(f"flwr {commands[name][0]} failed ({code}):\n{said}")

    def over(self) -> bool:
        """Whether the run is finished, by its own record; raises if it can't go on."""
        link = self.processes.started["superlink"].poll()
        record = Record.read(self.standing)
        running = record is not None and alive(record.pid)
        if record is not None and not running:
            record = Record.read(self.standing)  # its last word may have come since
        self.tell_rounds()
        if record is not None and record.status == FINISHED:
            return True
        if record is not None and record.status == FAILED:
            raise self.failure(record.error)
        if link is not None:
            raise self.failure(f"the SuperLink ended (exit code {link})")
        if record is None and time.monotonic() > self.started + COMMAND_TIMEOUT_S:
            raise self.failure(f"the ServerApp did not start within {COMMAND_TIMEOUT_S:g} s")
        if record is not None and not running:
            raise self.failure(f"the ServerApp (process {record.pid}) ended without a word")
        if record is not None and record.joined and not self.joined:
            self.joined = True
            self.tell(f"all {self.task.num_clients} SuperNodes joined")
        self.look_at_nodes()
        return False

    def look_at_nodes(self) -> None:
        """Tell which SuperNodes have ended; before all have joined, that ends the run."""
        for node in set(range(self.task.num_clients)) - self.lost:
            code = self.processes.started[f"supernode-{node}"].poll()
            if code is None:
                continue
            self.lost.add(node)
            self.tell(f"SuperNode {node} ended (exit code {code})")
            if not self.joined:
                said = self.processes.said(f"supernode-{node}")
                why = "ended before the run began"
                if NOT_LET_IN in said:
                    key = self.credentials.public_key(node)
                    why = f"was not let in: its private key does not belong to {key}"
                raise self.failure(f"SuperNode {node} {why} (exit code {code}):\n{said}\n")

    def failure(self, why: str) -> RuntimeError:
        """The error of a run that can't go on, with what is left of it."""
        left = round_folders(self.run_dir)
        way_out = "resume=True (--resume) goes on after the last round. " if left else ""
        return RuntimeError(f"{why}. {way_out}Logs: {self.processes.logs}")

    def tell_rounds(self) -> None:
        """Tell of the rounds that have been written since the last look."""
        folders = round_folders(self.run_dir)
        if not folders or number_of(folders[-1]) <= self.told:
            return
        try:
            record = json.loads((folders[-1] / HISTORY).read_text())
        except FileNotFoundError:
            return  # replaced just now
        self.told = len(record["rounds"])
        last = record["rounds"][-1] if record["rounds"] else {"evaluation": record["start"]}
        left_out = "".join(f"; {k} left out: {v}" for k, v in last.get("failed", {}).items())
        loss = last["evaluation"]["loss"]
        self.tell(f"round {self.told} of {self.task.rounds}: held-out loss {loss:.4f}{left_out}")


@contextmanager
def _uninterrupted():
    """Let nobody interrupt the ending of processes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
