"""The record of a run, for people and other tools: what was run, by which versions, how it went.

A run's folder holds ``run.json`` (the task with its seed, versions, processor, times) and
``metrics.jsonl`` (one JSON object a line: the pretrained start, then a round each). They are
written anew from the history with each checkpoint, so they never tell more than it holds. Texts
stand in none of them; ``samples.jsonl`` has some, if `keep_samples` is called.
"""

import contextlib
import datetime
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from workbench.federated.checkpoint import fingerprint
from workbench.federated.history import Evaluation, History, Round
from workbench.federated.record import write_whole
from workbench.federated.task import FederatedTask

#: Files of a run's record, and the layout of the first.
RUN, METRICS, SAMPLES, FORMAT = "run.json", "metrics.jsonl", "samples.jsonl", 1
#: Where runs are kept that get a folder from `new_run_dir`.
RUNS = "runs"


@dataclass(frozen=True)
class RunRecord:
    """A run as its record tells it.

    Parameters
    ----------
    name : str
        That of the folder.
    task : dict
        The task's fields; own rows are a number and a checksum.
    machine : dict
        Versions and processor.
    lines : tuple of dict
        What ``metrics.jsonl`` holds.
    """

    name: str
    task: dict[str, Any]
    machine: dict[str, str]
    lines: tuple[dict[str, Any], ...]


def new_run_dir(task: FederatedTask, runs: str | os.PathLike = RUNS) -> pathlib.Path:
    """A folder for a new run, made: time, method and a checksum of the task, then a number."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    short = hashlib.sha256(task.public_json().encode()).hexdigest()[:6]
    name, number = f"{now}-{task.method.label()}-{short}", 1
    while True:
        folder = pathlib.Path(runs) / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder


def write(run_dir: str | os.PathLike, history: History) -> None:
    """Write the record of a run so far; each file gets its name when it is complete."""
    folder, now = pathlib.Path(run_dir), datetime.datetime.now().astimezone()
    known = fingerprint(history.task)
    about = {"format": FORMAT, "name": folder.resolve().name, "begun": now.isoformat()}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # new, or damaged
        about["begun"] = json.loads((folder / RUN).read_text())["begun"]
    about |= {"written": now.isoformat(), "rounds_done": len(history.rounds)}
    about |= {"task": known["task"] | {"rounds": history.task.rounds}, "machine": known["machine"]}
    write_whole(folder / RUN, json.dumps(about, indent=2))
    write_whole(folder / METRICS, _lines(metrics(history)))


def catch_up(run_dir: str | os.PathLike, history: History) -> None:
    """Write a record that an interruption has left behind, or ahead of, its run's checkpoint."""
    folder = pathlib.Path(run_dir)
    if not (folder / RUN).exists():
        return
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        about = json.loads((folder / RUN).read_text())
        lines = len((folder / METRICS).read_text().splitlines())
        if about["rounds_done"] == lines - 1 == len(history.rounds):
            return
    write(folder, history)


def metrics(history: History) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl``; a number that is not finite is null."""
    start = {"round": 0, **_evaluated(history.start, {})}
    return [start, *(_round(each) for each in history.rounds)]


def _round(each: Round) -> dict[str, Any]:
    numbers = {k: v for k, v in vars(each).items() if isinstance(v, int | float | None)}
    line = {"round": numbers.pop("number"), **_evaluated(each.evaluation, each.trained)}
    told = {"failed": each.failed, "restarted": each.restarted}
    return line | {k: _finite(v) for k, v in numbers.items()} | told


def _evaluated(evaluation: Evaluation, trained: Mapping[str, float]) -> dict[str, Any]:
    clients: dict[str, dict] = {}
    for name in sorted({*evaluation.clients, *trained}):
        mine = {k: _finite(v) for k, v in evaluation.clients.get(name, {}).items()}
        clients[name] = mine | ({"train_loss": _finite(trained[name])} if name in trained else {})
    both = {"eval_loss": evaluation.loss, "accuracy": evaluation.accuracy}
    return {k: _finite(v) for k, v in both.items()} | {"clients": clients}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not isfinite(value) else value


def _lines(entries: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(each) + "\n" for each in entries)


def read(run_dir: str | os.PathLike) -> RunRecord:
    """Read the record of a run.

    Raises
    ------
    ValueError
        If the folder holds none, or one of another format.
    """
    folder = pathlib.Path(run_dir)
    try:
        about = json.loads((folder / RUN).read_text())
        lines = (folder / METRICS).read_text().splitlines()
        every = tuple(json.loads(line) for line in lines)
        number, task, machine = about["format"], about["task"], about["machine"]
        if not all(each["round"] == i for i, each in enumerate(every, every[0]["round"])):
            raise ValueError(f"{METRICS} leaves out rounds")
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise ValueError(
            f"{os.fspath(run_dir)!r} holds no run's record, or a damaged one "
            f"({type(error).__name__}: {error}): give the run_dir of a run. A resumed run writes "
            "its record anew."
        ) from None
    if number != FORMAT:
        raise ValueError(f"{folder / RUN} has format {number}, this version reads {FORMAT}.")
    return RunRecord(folder.resolve().name, task, machine, every)


def keep_samples(
    run_dir: str | os.PathLike,
    history: History,
    prompts: Sequence[str],
    max_new_tokens: int = 40,
) -> pathlib.Path:
    """Write what a causal model says before and after the run; texts are kept by this call only.

    Returns
    -------
    pathlib.Path
        Of ``samples.jsonl``, with ``prompt``, ``before`` and ``after`` in each line.

    Raises
    ------
    ValueError
        If the model is an encoder.
    """
    from workbench.federated.evaluation import samples

    said = samples(history, prompts, max_new_tokens).to_dict("records")
    path = pathlib.Path(run_dir) / SAMPLES
    write_whole(path, _lines(said))
    return path


def to_tensorboard(
    run_dir: str | os.PathLike, log_dir: str | os.PathLike | None = None
) -> pathlib.Path:
    """Write a run's numbers as TensorBoard's events, by TensorBoard's own writer.

    Parameters
    ----------
    run_dir : path
        Of a run with a record.
    log_dir : path, optional
        Where the events go; ``tensorboard`` in the run's folder if none is given.

    Raises
    ------
    ImportError
        If the package tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ImportError(
            "to_tensorboard needs the package tensorboard: `pip install tensorboard`."
        ) from None
    run, folder = read(run_dir), pathlib.Path(log_dir or pathlib.Path(run_dir) / "tensorboard")
    with SummaryWriter(str(folder)) as writer:
        writer.add_text("task", f"```\n{json.dumps(run.task, indent=2)}\n```", 0)
        for line in run.lines:
            for name, value in scalars(line).items():
                writer.add_scalar(name, value, line["round"])
    return folder


def scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line by TensorBoard's names; a client's stand below its name.

    Examples
    --------
    >>> scalars({"round": 1, "eval_loss": 2.0, "epsilon": None, "clients": {"a": {"loss": 1.0}}})
    {'eval_loss': 2.0, 'clients/a/loss': 1.0}
    """
    own = {k: v for k, v in line.items() if isinstance(v, int | float) and k != "round"}
    for client, numbers in line["clients"].items():
        own |= {f"clients/{client}/{k}": v for k, v in numbers.items() if v is not None}
    return own
