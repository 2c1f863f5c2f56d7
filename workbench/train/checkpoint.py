"""Checkpoints that any strategy on any number of ranks can go on from.

They are written by torch.distributed.checkpoint and hold whole logical tensors, queries, keys and
values apart: who reads one takes the part that its own strategy asks for.
"""

import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from workbench.train.task import TrainTask

#: The file beside the tensors that says what is trained.
TASK = "task.json"


def save(folder: Path, state: Mapping[str, Tensor], task: TrainTask) -> Path:
    """Leave ``state`` in ``folder`` and remove older ones: an interruption leaves one of the two.

    Returns
    -------
    Path
        ``folder/step-0000050`` after 50 steps. For one rank to call.
    """
    folder.mkdir(parents=True, exist_ok=True)
    older = _all(folder)
    complete = folder / f"step-{len(state['losses']):07d}"
    if complete in older:
        return complete
    part = folder / f".{complete.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    with _alone() as dcp:
        dcp.save(dict(state), checkpoint_id=part, no_dist=True)
    (part / TASK).write_text(task.to_json())
    part.rename(complete)
    for path in older:
        shutil.rmtree(path)
    return complete


def load(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a checkpoint, whole."""
    with _alone() as dcp:
        entries = dcp.FileSystemReader(path).read_metadata().state_dict_metadata
        state = {name: torch.empty(e.size, dtype=e.properties.dtype) for name, e in entries.items()}
        dcp.load(state, checkpoint_id=path, no_dist=True)
    return state


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint in ``folder``, if there is one."""
    return max(_all(folder), default=None)


def start_from(folder: Path | None, task: TrainTask, resume: bool) -> Path | None:
    """The checkpoint that a run of ``task`` begins with; None begins anew.

    Raises
    ------
    ValueError
        If the folder holds a checkpoint of another task or of more steps, or one at all where
        nothing is to be resumed.
    """
    found = latest(folder) if folder is not None else None
    if found is None:
        return None
    if not resume:
        raise ValueError(
            f"{folder} holds a checkpoint already, {found.name}: go on from it with resume=True, "
            "or give an empty folder"
        )
    there, here = _task_of(found), json.loads(task.to_json())
    if other := [name for name in here if there.get(name) != here[name]]:
        differences = "; ".join(f"{name} is {there.get(name)}, not {here[name]}" for name in other)
        raise ValueError(
            f"{found} is of another task: there {differences}. Only steps may change when a run "
            "goes on; give the same task, or an empty folder"
        )
    if (made := int(found.name.removeprefix("step-"))) > task.steps:
        raise ValueError(
            f"{found} has made {made} steps already, more than steps={task.steps}: ask for at "
            f"least {made}, or give an empty folder"
        )
    return found


@contextmanager
def _alone() -> Iterator[ModuleType]:
    """torch.distributed.checkpoint, without its warning that it works for one process."""
    import torch.distributed.checkpoint as dcp  # takes a second to import

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield dcp


def _all(folder: Path) -> list[Path]:
    found = (path for path in folder.glob("step-*") if (path / TASK).exists())
    return [path for path in found if path.name.removeprefix("step-").isdecimal()]


def _task_of(found: Path) -> dict:
    """The task that a checkpoint is of; before anything is launched, what is missing is named."""
    way_out = f"delete {found} to go on from the one before, or give an empty folder"
    try:
        there = json.loads((found / TASK).read_text())
    except ValueError as error:
        raise ValueError(f"{found / TASK} is damaged: {error}; {way_out}") from None
    if not isinstance(there, dict):
        raise ValueError(f"{found / TASK} holds no task; {way_out}")
    if not (found / ".metadata").is_file() or not list(found.glob("*.distcp")):
        raise ValueError(f"{found} lacks a part of its weights; {way_out}")
    return there
