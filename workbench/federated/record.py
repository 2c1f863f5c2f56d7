"""What a ServerApp leaves beside its rounds in a deployment: that it runs, and how it ended.

Flower's exit codes don't say so: `flwr run` has returned 0 for runs that had failed.
"""

import json
import os
import pathlib
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

#: How a run stands.
RUNNING, FINISHED, FAILED = "running", "finished", "failed"


@dataclass(frozen=True)
class Record:
    """How a run stands, in which process, and why it failed.

    Parameters
    ----------
    status : {"running", "finished", "failed"}
        As the process itself has written it last; a killed one remains "running".
    pid : int
        Number of the process.
    joined : bool
        Whether all clients have joined.
    error, details : str
        Kind and message of what was raised, if the run failed, and from where.
    """

    status: str
    pid: int
    joined: bool = False
    error: str = ""
    details: str = ""

    def write(self, path: str | os.PathLike) -> None:
        """Write the record; it gets its name when it is complete."""
        write_whole(path, json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Record | None":
        """Read a record; ``None`` if there is none."""
        try:
            return cls(**json.loads(pathlib.Path(path).read_text()))
        except FileNotFoundError:
            return None


def write_whole(path: str | os.PathLike, text: str) -> None:
    """Write a file; it gets its name when it is complete, in place of an older one."""
    path = pathlib.Path(path)
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)


@contextmanager
def recorded(path: str | os.PathLike | None) -> Iterator[None]:
    """Record in a file that what happens inside runs, and how it ended; no path, no file.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with recorded(f"{folder}/record.json"):
    ...         print(Record.read(f"{folder}/record.json").status)
    ...     Record.read(f"{folder}/record.json").status
    running
    'finished'
    """
    if path is None:
        yield
        return
    Record(RUNNING, os.getpid()).write(path)
    try:
        yield
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
        Record(FAILED, os.getpid(), _joined(path), said, traceback.format_exc()).write(path)
        raise
    Record(FINISHED, os.getpid(), _joined(path)).write(path)


def note_joined(path: str | os.PathLike | None) -> None:
    """Record that all clients have joined."""
    if path is not None:
        Record(RUNNING, os.getpid(), joined=True).write(path)


def _joined(path: str | os.PathLike) -> bool:
    record = Record.read(path)
    return record is not None and record.joined
