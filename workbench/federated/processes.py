"""Processes of a deployment: known by a mark in their environment, and none is left behind."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import psutil

#: Environment variable that every process of a deployment carries: the run's folder.
MARK = "WORKBENCH_FEDERATION"
#: How long processes have to end by themselves before they are killed [s].
GRACE_S = 5.0
#: How often to look [s].
POLL_S = 0.1


class Processes:
    """What a deployment has started, by name, and what that has started in turn.

    Parameters
    ----------
    run_dir : pathlib.Path
        The run's folder: logs go to ``logs`` in it, and processes carry its path as their mark.
    home : pathlib.Path
        Flower's own folder, for the time of the deployment.
    """

    def __init__(self, run_dir: pathlib.Path, home: pathlib.Path):
        self.mark, self.logs = str(run_dir.resolve()), run_dir / "logs"
        self.started: dict[str, subprocess.Popen] = {}
        self._environment = flower_environment(home) | {MARK: self.mark}
        self._home = home

    def start(self, name: str, command: Sequence[str]) -> subprocess.Popen:
        """Start one of Flower's commands; what it says goes to a log of that name."""
        found = shutil.which(command[0], path=self._environment["PATH"])
        if found is None:
            raise FileNotFoundError(
                f"{command[0]} is not installed beside {sys.executable}: run `make setup`."
            )
        self.logs.mkdir(parents=True, exist_ok=True)
        with (self.logs / f"{name}.log").open("wb") as log:
            self.started[name] = subprocess.Popen(
                [found, *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._home,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for us; we end them
            )
        return self.started[name]

    def said(self, name: str, lines: int = 12) -> str:
        """The last lines of a process's log."""
        path = self.logs / f"{name}.log"
        text = path.read_text(errors="replace") if path.exists() else ""
        return "\n".join(text.strip().splitlines()[-lines:])

    def end(self) -> None:
        """End every process that carries the mark, and wait until there is none."""
        end_marked(self.mark)
        for process in self.started.values():
            process.wait()


def marked(mark: str) -> Iterator[psutil.Process]:
    """The processes that carry a mark and run."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except (psutil.Error, OSError):
            continue  # another user's, or gone


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end_marked(mark: str) -> None:
    """Ask the processes of a mark to end; kill those that don't, and what they start meanwhile."""
    deadline = time.monotonic() + GRACE_S
    asked: set[int] = set()
    while running := list(marked(mark)):
        late = time.monotonic() > deadline
        for process in running:
            try:
                if late:
                    process.kill()
                elif process.pid not in asked:
                    asked.add(process.pid)
                    process.terminate()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(running, timeout=POLL_S)


def flower_environment(home: pathlib.Path) -> dict[str, str]:
    """This environment, with Flower's own folder elsewhere and nothing sent or fetched by it."""
    package = str(pathlib.Path(__file__).parents[2])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    here = ["127.0.0.1", "localhost", *filter(None, [os.environ.get("NO_PROXY")])]
    scripts = [str(pathlib.Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    return os.environ | {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
        "NO_PROXY": ",".join(here),
        "no_proxy": ",".join(here),
        "PYTHONPATH": os.pathsep.join(paths),
        "PATH": os.pathsep.join(scripts),
    }


def free_ports(count: int) -> list[int]:
    """Different ports of this machine that nobody listens on, chosen by the system.

    They are free now; another process may take one before it is used, and then its user fails.

    Examples
    --------
    >>> len(set(free_ports(3)))
    3
    """
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
