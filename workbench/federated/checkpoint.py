"""A round's state on disk: whole or not there, checked before it is believed.

A folder ``round-0007`` holds the history so far, with the weights; the server's state; what the
run is (`fingerprint`); and the checksum of each file. Random numbers depend on nothing but seed,
purpose, round and client, so a generator has no state of its own.
"""

import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from math import isnan
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from safetensors.numpy import load_file, save_file

from workbench.federated.client_memory import check_memories
from workbench.federated.history import History
from workbench.federated.methods.base import Arrays, ServerState
from workbench.federated.task import FederatedTask

#: Files of a checkpoint beside those of the history.
STATE, FINGERPRINT, MANIFEST = "state.safetensors", "fingerprint.json", "manifest.json"
#: The layout of a checkpoint; one of another number is refused.
FORMAT = 1
#: Rounds whose state is kept beside the best one's.
KEPT_ROUNDS = 2
#: Packages whose versions decide bits.
PACKAGES = ("torch", "numpy", "flwr", "peft", "transformers")
#: Names within the state: the method's memory, and when each client's update was last used.
MEMORY, USED = "memory/", "used"


@dataclass(frozen=True)
class Checkpoint:
    """A run after a round."""

    history: History
    memory: Arrays
    used: np.ndarray

    @property
    def server(self) -> ServerState:
        """What the method goes on from."""
        return ServerState(self.history.weights, self.history.base_deltas, self.memory)


def fingerprint(task: FederatedTask) -> dict[str, Any]:
    """What has to be equal for equal bits: the task but for its rounds; versions and processor.

    Of a model in a folder that is what its files hold.
    """
    public = json.loads(task.public_json())
    del public["rounds"]
    if (folder := pathlib.Path(task.model)).is_dir():
        files = sorted(path for path in folder.iterdir() if path.is_file())
        stamps = tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files)
        public["files of the model"] = _contents(stamps)
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    machine = {"python": platform.python_version(), "cpu": _processor(), **versions}
    return {"task": public, "machine": machine}


@lru_cache(maxsize=16)  # asked for in every round
def _contents(stamps: tuple[tuple[pathlib.Path, int, int], ...]) -> str:
    """A checksum of files; their sizes and times tell whether they are still the same."""
    found = hashlib.sha256()
    for path, *_ in stamps:
        found.update(f"{path.name} {_checksum(path)}\n".encode())
    return found.hexdigest()


def _processor() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def round_folder(run_dir: str | os.PathLike, number: int) -> pathlib.Path:
    """Where the checkpoint of a round is."""
    return pathlib.Path(run_dir) / f"round-{number:04d}"


def write(run_dir: pathlib.Path, state: Checkpoint) -> None:
    """Write a checkpoint, then delete what is no longer needed."""
    folder = round_folder(run_dir, len(state.history.rounds))

    def also(partial: pathlib.Path) -> None:
        memory = {f"{MEMORY}{k}": np.ascontiguousarray(a) for k, a in state.memory.items()}
        save_file(memory | {USED: state.used}, partial / STATE)
        (partial / FINGERPRINT).write_text(json.dumps(fingerprint(state.history.task)))
        sums = {path.name: _checksum(path) for path in sorted(partial.iterdir())}
        (partial / MANIFEST).write_text(json.dumps({"format": FORMAT, "sha256": sums}))

    state.history.save(folder, also)
    losses = {r.number: r.eval_loss for r in state.history.rounds if not isnan(r.eval_loss)}
    best = round_folder(run_dir, min(losses, key=losses.get)) if losses else folder
    for old in round_folders(run_dir)[:-KEPT_ROUNDS]:
        if old != best:
            shutil.rmtree(old)


def round_folders(run_dir: str | os.PathLike) -> list[pathlib.Path]:
    """The checkpoints of a run, the first round first; from round 10000 on names are longer."""
    found = pathlib.Path(run_dir).glob("round-*")
    return sorted((path for path in found if path.name[len("round-") :].isdecimal()), key=number_of)


def number_of(folder: pathlib.Path) -> int:
    """The round that a checkpoint's folder is named after."""
    return int(folder.name[len("round-") :])


def _checksum(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def latest(
    run_dir: str | os.PathLike, task: FederatedTask, strict: bool | None = None
) -> Checkpoint | None:
    """The last round of a run, for this task to go on from; ``None`` if there is none yet.

    Parameters
    ----------
    strict : bool or None
        Whether other versions or another processor are refused, rather than warned of; ``None``
        does not look.

    Raises
    ------
    ValueError
        If the last checkpoint is damaged or not of this task; the message says what to do.
    """
    folders = round_folders(run_dir)
    if not folders:
        return None
    folder = folders[-1]
    _check_files(folder)
    _check_task(folder, task, strict)
    check_memories(run_dir)
    history = History.load(folder, task)
    done = len(history.rounds)
    if done != number_of(folder):
        raise ValueError(
            f"{folder} holds {done} rounds, which is not what its name says: give it back its "
            "name, or delete it to go on from the round before."
        )
    if done > task.rounds:
        raise ValueError(
            f"rounds={task.rounds}, but {os.fspath(run_dir)!r} has {done} rounds: a run may become "
            f"longer, not shorter. Take rounds={done} or more, or another run_dir."
        )
    arrays = load_file(folder / STATE)
    used = arrays.pop(USED)
    memory = {name.removeprefix(MEMORY): array for name, array in arrays.items()}
    return Checkpoint(replace(history, task=task), memory, used)


def _check_files(folder: pathlib.Path) -> None:
    way_out = f"Delete {str(folder)!r} to go on from the round before, or take another run_dir."
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        sums, number = dict(manifest["sha256"]), manifest["format"]
        if unnamed := {path.name for path in folder.iterdir()} - {MANIFEST, *sums}:
            raise ValueError(f"it has no checksum of {', '.join(sorted(unnamed))}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} is no checkpoint: {MANIFEST}: {error}. {way_out}") from None
    if number != FORMAT:
        raise ValueError(f"{folder} has format {number}, this version reads {FORMAT}. {way_out}")
    for name, expected in sums.items():
        path = folder / pathlib.Path(name).name
        if not path.is_file() or _checksum(path) != expected:
            raise ValueError(f"{path} is damaged or missing: its checksum differs. {way_out}")


def _check_task(folder: pathlib.Path, task: FederatedTask, strict: bool | None) -> None:
    theirs, ours = json.loads((folder / FINGERPRINT).read_text()), fingerprint(task)
    if odd := differences(theirs["task"], ours["task"]):
        raise ValueError(
            f"{str(folder.parent)!r} holds another task's run; it differs in {', '.join(odd)}. "
            "Give the same task (rounds may be more), or another run_dir."
        )
    if strict is not None and (odd := differences(theirs["machine"], ours["machine"])):
        said = f"the run in {str(folder.parent)!r} was begun elsewhere: {', '.join(odd)}"
        if strict:
            raise ValueError(f"{said}; with strict=True it is not continued here.")
        warnings.warn(f"{said}; bits may differ from a run in one place.", stacklevel=4)


def differences(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """Which entries differ, with both values.

    Examples
    --------
    >>> differences({"lora_rank": 2, "seed": 0}, {"lora_rank": 4, "seed": 0})
    ['lora_rank (2 there, 4 here)']
    """
    keys = [*theirs, *(key for key in ours if key not in theirs)]
    return [
        f"{key} ({theirs.get(key)!r} there, {ours.get(key)!r} here)"
        for key in keys
        if theirs.get(key) != ours.get(key)
    ]


@contextmanager
def locked(run_dir: pathlib.Path):
    """Keep other processes out of a run's folder; the system drops a dead process's lock."""
    if run_dir.exists() and not run_dir.is_dir():
        raise ValueError(f"run_dir={str(run_dir)!r} is a file; give a folder, new or not.")
    run_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run_dir / "run.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RuntimeError(
            f"run_dir={str(run_dir)!r} is in use by another run: wait for it, or take another."
        ) from None
    try:
        for left in [*run_dir.glob("*.partial-*"), *run_dir.glob("round-*.old-*")]:
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()
        yield
    finally:
        lock.release()
