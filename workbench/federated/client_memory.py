"""What a client keeps between rounds: that of the last round in which its update was used.

The server says which round that is. So a replayed round finds the state before it, and an update
that was refused, or came too late, leaves nothing behind.
"""

import hashlib
import os
import pathlib
import shutil

from safetensors import safe_open
from safetensors.numpy import save_file

from workbench.federated.methods.base import Arrays
from workbench.federated.task import FederatedTask

#: Beginnings of the names: the method's own arrays, and what compression has not sent yet.
METHOD, FEEDBACK = "method/", "feedback/"
#: Key of the checksum within a file.
CHECKSUM = "sha256"
#: A run can go back to the round before its last: states back to there are kept.
ROUNDS_BACK = 2


def is_stateful(task: FederatedTask) -> bool:
    """Whether a client of this task keeps anything between rounds."""
    return task.method.stateful or bool(task.compression and task.compression.stateful)


class ClientMemory:
    """One client's arrays, a file for each round in which it trained."""

    def __init__(self, run_dir: str | os.PathLike, client: int):
        self.folder = pathlib.Path(run_dir) / "clients" / f"{client:06d}"

    def of(self, used: int) -> tuple[int, Arrays]:
        """What the client kept in round ``used``, or in the last one before that is left; which."""
        found = [each for each in self._rounds() if each <= used]
        if not found:
            return 0, {}
        return found[-1], _read(self._path(found[-1]))

    def check(self) -> None:
        """Read all that is kept; ValueError names a file that is damaged."""
        for number in self._rounds():
            _read(self._path(number))

    def write(self, number: int, arrays: Arrays, used: int) -> None:
        """Keep arrays as those of a round; the file gets its name when it is complete.

        What was kept after the last round ``used`` goes.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"partial-{os.getpid()}"
        save_file({k: a.copy() for k, a in arrays.items()}, partial, {CHECKSUM: _checksum(arrays)})
        partial.replace(self._path(number))
        rounds = self._rounds()
        needed = [each for each in rounds if each <= min(used, number - ROUNDS_BACK)][-1:]
        needed += [each for each in rounds if number - ROUNDS_BACK < each <= used] + [number]
        for old in set(rounds) - set(needed):
            self._path(old).unlink()

    def _rounds(self) -> list[int]:
        return sorted(int(path.stem) for path in self.folder.glob("*.safetensors"))

    def _path(self, number: int) -> pathlib.Path:
        return self.folder / f"{number:06d}.safetensors"


def check_memories(run_dir: str | os.PathLike) -> None:
    """Raise ValueError if a client's state in a run's folder is damaged."""
    for folder in sorted((pathlib.Path(run_dir) / "clients").glob("[0-9]*")):
        ClientMemory(run_dir, int(folder.name)).check()


def forget_memories(run_dir: str | os.PathLike) -> None:
    """Delete what clients keep in a run's folder: no round is left that it belongs to."""
    shutil.rmtree(pathlib.Path(run_dir) / "clients", ignore_errors=True)


def _read(path: pathlib.Path) -> Arrays:
    try:
        with safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if (file.metadata() or {}).get(CHECKSUM) != _checksum(arrays):
                raise ValueError("its checksum differs")
    except Exception as error:
        raise ValueError(
            f"{path} is damaged: {error}. Put it back, or delete it: the client then goes on "
            "from what it kept before, or from 0, and the run to other bits"
        ) from None
    return arrays


def _checksum(arrays: Arrays) -> str:
    found = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        found.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def part(arrays: Arrays, prefix: str) -> Arrays:
    """The arrays whose names begin with ``prefix``, without it."""
    return {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)}


def named(arrays: Arrays, prefix: str) -> Arrays:
    """The arrays with ``prefix`` before their names."""
    return {f"{prefix}{name}": array for name, array in arrays.items()}
