"""Run a federated task as a deployment on this machine: SuperLink and SuperNodes with TLS and keys.

``python -m workbench.federated.deploy`` starts them, runs the apps of the simulation to the same
bits, and ends everything it has started. The task travels in the run's config; a node is told by
its own config which client it is and where it keeps what that client needs between rounds.
"""

import argparse
import datetime
import os
import pathlib
import signal
import sys
import tempfile
from dataclasses import replace

from workbench.federated import checkpoint
from workbench.federated.credentials import Credentials, make_credentials
from workbench.federated.deployment import Deployment, Tell
from workbench.federated.history import History
from workbench.federated.lora import TASK as TASK_FILE
from workbench.federated.partition import clients_of
from workbench.federated.processes import end_marked
from workbench.federated.server_app import (
    JOIN_TIMEOUT,
    JOIN_TIMEOUT_S,
    ROUND_TIMEOUT,
    ROUND_TIMEOUT_S,
)
from workbench.federated.simulation import reached
from workbench.federated.task import FederatedTask
from workbench.federated.tuning import check_model

#: Where runs are left that were given no folder.
RUNS = pathlib.Path("runs")
#: Beginning of the name of the folder with Flower's files, certificates and keys.
TEMPORARY = "workbench-federation-"


def run_deployment(
    task: FederatedTask,
    run_dir: str | os.PathLike,
    resume: bool = False,
    credentials: str | os.PathLike | None = None,
    join_timeout_s: float = JOIN_TIMEOUT_S,
    round_timeout_s: float = ROUND_TIMEOUT_S,
    tell: Tell | None = print,
    strict: bool = False,
) -> History:
    """Run a task on a SuperLink and a SuperNode for each client, all on this machine.

    The weights are those of `simulate`, bit for bit. A SuperNode that dies once all have joined
    fails in its rounds, which go on while `min_clients` answer.

    Parameters
    ----------
    task : FederatedTask
        What to run. Own rows travel to every node in the run's config.
    run_dir : path
        Where each round is left, and the processes' logs.
    resume : bool
        Go on after the last round that is there, as a new run of Flower.
    credentials : path, optional
        A folder as `make_credentials` makes it; one for the time of the run if none is given.
    join_timeout_s : float
        How long to wait for all nodes to join, and later for enough of them to return [s].
    round_timeout_s : float
        How long to wait for the answers of one exchange; who is later is left out [s].
    tell : callable or None
        Called with a line for each thing that happens.
    strict : bool
        As in `simulate`.

    Raises
    ------
    ValueError
        If the task can't be or has a `System`, a certificate is not valid now, or ``run_dir`` holds
        rounds and ``resume`` is not set, or another task's run; before anything is started.
    RuntimeError
        If a node was not let in, too few answered, or the SuperLink or the ServerApp ended; what
        is done is in ``run_dir``.
    """
    if pathlib.Path(task.model).is_dir():  # processes are started elsewhere
        task = replace(task, model=str(pathlib.Path(task.model).absolute()))
    _check_deployable(task)
    run_dir, tell = pathlib.Path(run_dir).absolute(), tell or _silent
    for name, value in (("join_timeout_s", join_timeout_s), ("round_timeout_s", round_timeout_s)):
        if not value > 0:
            raise ValueError(f"{name}={value}; it is a number of seconds above 0.")
    given = None if credentials is None else Credentials(pathlib.Path(credentials).absolute())
    if given is not None:
        given.check(task.num_clients)
    with checkpoint.locked(run_dir):
        end_marked(str(run_dir.resolve()))  # what a deployment left that was itself killed
        done = checkpoint.latest(run_dir, task, strict)
        if done is not None and not resume:
            raise ValueError(
                f"run_dir={str(run_dir)!r} holds {len(done.history.rounds)} rounds already: "
                "resume=True (--resume) goes on after them, or take another run_dir."
            )
        if done is None or len(done.history.rounds) < task.rounds:
            timeouts = {JOIN_TIMEOUT: float(join_timeout_s), ROUND_TIMEOUT: float(round_timeout_s)}
            with tempfile.TemporaryDirectory(prefix=TEMPORARY) as name:
                home = pathlib.Path(name)
                keys = given or make_credentials(home / "credentials", task.num_clients)
                Deployment(task, run_dir, home, keys, timeouts, tell).run()
        return reached(task, run_dir)


def _check_deployable(task: FederatedTask) -> None:
    """Refuse what a deployment can't run, before anything is started."""
    clients_of(task)
    check_model(task)
    if task.secure_aggregation is not None:
        raise ValueError(
            f"{task.secure_aggregation!r} runs in simulate() only: no deployment of it is tested. "
            "Leave secure_aggregation out, or use simulate()."
        )
    if task.system is not None:
        raise ValueError(
            f"{task.system!r} is a simulated clock, and a deployment's clients have speeds of "
            "their own: take system=None here, or simulate()."
        )


def _silent(line: str) -> None:
    """Say nothing."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status, which is 0 only if every round is there."""
    options = _parser().parse_args(arguments)
    try:
        run_dir = options.run_dir or _newest() if options.resume else options.run_dir or _new()
        task = _task(options, run_dir)
        print(f"rounds and logs are left in {run_dir}", flush=True)
        history = run_deployment(
            task,
            run_dir,
            options.resume,
            options.credentials,
            options.join_timeout_s,
            options.round_timeout_s,
            lambda line: print(line, flush=True),
        )
    except (ValueError, RuntimeError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; --resume goes on after the last round", file=sys.stderr)
        return 130
    print(history.to_frame().to_string(index=False))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m workbench.federated.deploy",
        description="Run a federated task on a SuperLink and SuperNodes on this machine.",
    )
    parser.add_argument("--task", type=pathlib.Path, help="file with FederatedTask.to_json()")
    parser.add_argument("--nodes", type=int, default=2, help="clients, if there is no --task")
    parser.add_argument("--rounds", type=int, help="more than the task's, to go on for longer")
    parser.add_argument("--run-dir", type=pathlib.Path, help=f"default: a new one in {RUNS}")
    parser.add_argument("--resume", action="store_true", help="go on with the newest, or --run-dir")
    parser.add_argument("--credentials", type=pathlib.Path, help="folder; default: made anew")
    parser.add_argument("--join-timeout-s", type=float, default=JOIN_TIMEOUT_S)
    parser.add_argument("--round-timeout-s", type=float, default=ROUND_TIMEOUT_S)
    return parser


def _task(options: argparse.Namespace, run_dir: pathlib.Path) -> FederatedTask:
    """The task of a file, of the run that is gone on with, or a small one."""
    rounds = {} if options.rounds is None else {"rounds": options.rounds}
    left = checkpoint.round_folders(run_dir) if options.resume else []
    file = options.task or (left[-1] / TASK_FILE if left else None)
    if file is not None:
        return replace(_read_task(file), **rounds)
    if options.resume:
        raise ValueError(
            f"--resume: {run_dir} holds no round to go on from. Leave --resume out to begin "
            "there, give its --task, or another --run-dir."
        )
    nodes = options.nodes
    return FederatedTask(num_clients=nodes, clients_per_round=nodes, **({"rounds": 2} | rounds))


def _read_task(file: pathlib.Path) -> FederatedTask:
    try:
        return FederatedTask.from_json(file.read_text())
    except (TypeError, LookupError, ValueError) as error:
        raise ValueError(f"{file} holds no task: {type(error).__name__}: {error}") from None


def _new() -> pathlib.Path:
    return RUNS / f"federation-{datetime.datetime.now():%Y%m%d-%H%M%S}"


def _newest() -> pathlib.Path:
    if not (found := sorted(RUNS.glob("federation-*"))):
        raise ValueError(f"--resume: there is no run in {RUNS}; give its folder as --run-dir.")
    return found[-1]


def _stop(number: int, frame: object) -> None:
    """End as after Ctrl-C."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    raise SystemExit(main())
