"""Simulate a federated run on this machine: the apps of a deployment, on one of two engines."""

import os
import pathlib
import tempfile
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.simulation import run_simulation

from workbench.federated import batched as together
from workbench.federated import checkpoint, client_app, run_record, server_app, vectorised
from workbench.federated.checkpoint import Checkpoint
from workbench.federated.client_app import RUN_DIR, TASK
from workbench.federated.client_memory import METHOD, ClientMemory, part
from workbench.federated.history import History
from workbench.federated.in_process import (
    ROUND_TIMEOUT_S,
    InProcessGrid,
    quiet_flower,
    task_identity,
)
from workbench.federated.learner import forget_learners
from workbench.federated.lora import Weights, initial_adapter
from workbench.federated.partition import clients_of
from workbench.federated.progress import watch_of
from workbench.federated.server_app import KEEP, ROUND_TIMEOUT, WATCH
from workbench.federated.task import FederatedTask, Handed
from workbench.federated.tuning import check_model

ENGINES = ("in-process", "ray", vectorised.ENGINE)
#: The part of a GPU that one of Ray's clients takes, where there is one.
CLIENT_GPUS = 0.25


def simulate(
    task: FederatedTask,
    engine: str = "in-process",
    run_dir: str | os.PathLike | None = None,
    progress: Any = True,
    strict: bool = False,
    batched: bool = False,
) -> History:
    """Run a federated task; the same seed gives the same weights, bit for bit.

    Parameters
    ----------
    task : FederatedTask
        What to run.
    engine : {"in-process", "ray", "vectorised"}
        One client after another in this process; or clients in parallel in Ray's processes, which
        take several seconds to start; or, with FedAvg of ``model="linear"`` alone, all clients in
        one batched step, without messages and equal to 1e-5 only, which ``history.engine`` says.
    run_dir : path, optional
        Where each round is left as soon as it is done, with all that the run needs: a second call
        goes on after the last one, to the same bits. Without it, only the result is kept.
    progress : bool or Watch
        Show a bar that counts the clients' answers, or tell a `Watch`, such as a dashboard.
    strict : bool
        Refuse to go on with a run that other versions or another processor began; otherwise a
        warning says so.

    batched : bool
        Of the engine "in-process": several clients' LoRA in one step, up to three times as fast
        with few tokens a step and no faster with many. Equal to 1e-5, not to the bit, so no rounds
        are kept; ``history.engine`` says it.

    Raises
    ------
    ValueError
        If the engine, the data or the number of clients can't be, or ``run_dir`` holds another
        task's run, a longer one or a damaged one; before anything is loaded.
    RuntimeError
        If a round has fewer valid updates than ``min_clients``; the message names the clients. If
        another run is using ``run_dir``.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r}; it is one of {list(ENGINES)}.")
    if batched:
        _check_batched(task, engine, run_dir)
    watch = watch_of(progress)
    if engine == vectorised.ENGINE:
        if run_dir is not None:
            raise ValueError(
                f"engine='vectorised' with run_dir={str(run_dir)!r}; it keeps no rounds, as its "
                "bits are not those of the messages' way. Leave run_dir out; history.save keeps it."
            )
        return vectorised.run(task, watch)
    clients_of(task)  # both refuse before a model is loaded
    check_model(task)
    with _folder(run_dir) as folder:
        done = checkpoint.latest(folder, task, strict)
        if done is None or len(done.history.rounds) < task.rounds:
            keep = run_dir is not None
            here = engine == "in-process"
            config = {RUN_DIR: str(folder), KEEP: keep}
            config |= {TASK: Handed(task) if here else task.to_json()}
            config |= {ROUND_TIMEOUT: ROUND_TIMEOUT_S} if here else {}
            run = partial(_in_process, batched=batched) if here else _ray
            with quiet_flower(), warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # Ray's, about its own next version
                run(task, config, watch)
        history = reached(task, folder)
        return replace(history, engine=together.ENGINE) if batched else history


def _check_batched(task: FederatedTask, engine: str, run_dir: str | os.PathLike | None) -> None:
    together.check(task)
    if engine != "in-process" or run_dir is not None:
        raise ValueError(
            f"batched=True with engine={engine!r} and run_dir={run_dir!r}: it is of the engine "
            "'in-process' and keeps no rounds, as its bits are not those of one client after "
            "another. Leave run_dir out; history.save keeps the result."
        )


def reached(task: FederatedTask, folder: pathlib.Path) -> History | None:
    """The history of a run's rounds so far, with the clients' own models; ``None``: of none."""
    done = checkpoint.latest(folder, task)
    if done is None:
        return None
    run_record.catch_up(folder, done.history)
    return replace(done.history, personal=_personal(done, folder))


@contextmanager
def _folder(run_dir: str | os.PathLike | None):
    """The run's folder, locked; one for the time of the run if none is given."""
    if run_dir is None:
        with tempfile.TemporaryDirectory(prefix="workbench-") as name:
            yield pathlib.Path(name)
        return
    if not isinstance(run_dir, str | os.PathLike) or not os.fspath(run_dir):
        raise ValueError(f"run_dir={run_dir!r}; it is the path of a folder, or None for none kept.")
    with checkpoint.locked(pathlib.Path(run_dir)):
        yield pathlib.Path(run_dir)


def _personal(done: Checkpoint, folder: pathlib.Path) -> dict[str, Weights]:
    """The clients' own models, of those whose training was used."""
    history, task, found = done.history, done.history.task, {}
    if not task.method.personal:
        return found
    for index, client in enumerate(clients_of(task)):
        _, memory = ClientMemory(folder, index).of(int(done.used[index]))
        if mine := part(memory, METHOD):
            shared = task.method.shared(history.weights, index)
            own = task.method.own(shared, mine, lambda: initial_adapter(task))
            found[client.name] = dict(sorted(own.items()))
    return found


def _in_process(task: FederatedTask, config: dict, watch: Any, batched: bool) -> None:
    grid = (together.BatchedGrid if batched else InProcessGrid)(
        client_app.app, task.num_clients, config
    )
    setattr(grid, WATCH, watch)
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config)
    try:
        with task_identity():
            server_app.app(grid, context)
    finally:
        forget_learners()


def _ray(task: FederatedTask, config: dict, watch: Any) -> None:
    """Let Flower start Ray, in a thread of its own so that an interruption is heard at once."""
    gpus = CLIENT_GPUS if torch.cuda.is_available() else 0.0
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(
            run_simulation,
            configured_server(server_app.app, config, stop, watch),
            configured_client(client_app.app, config),
            num_supernodes=task.num_clients,
            backend_config={
                "client_resources": {"num_cpus": task.threads, "num_gpus": gpus},
                "init_args": {"logging_level": "error", "log_to_driver": False},
            },
        )
        try:
            done.result()
        finally:
            stop.set()


def configured_server(
    app: ServerApp, config: dict, stop: threading.Event, watch: Any = None
) -> ServerApp:
    """The same app with a run config, which `run_simulation` has no argument for.

    Its Grid raises as soon as ``stop`` is set.
    """
    wrapper = ServerApp()

    @wrapper.main()
    def main(grid, context):
        pull = grid.pull_messages

        def pull_unless_stopped(message_ids):
            if stop.is_set():
                raise InterruptedError("the run was interrupted")
            return pull(message_ids)

        grid.pull_messages = pull_unless_stopped
        setattr(grid, WATCH, watch)
        app(grid, _with_config(context, config))

    return wrapper


def configured_client(app: ClientApp, config: dict) -> ClientApp:
    """The same app with a run config, which `run_simulation` has no argument for."""
    wrapper = ClientApp()
    for register in (wrapper.query, wrapper.train, wrapper.evaluate):
        register()(partial(_handle, app, config))  # a closure might not travel to Ray's processes
    return wrapper


def _handle(app: ClientApp, config: dict, message: Message, context: Context) -> Message:
    return app(message, _with_config(context, config))


def _with_config(context: Context, config: dict) -> Context:
    """A context that shares its state with the given one."""
    run_config = {**context.run_config, **config}
    return Context(context.run_id, context.node_id, context.node_config, context.state, run_config)
