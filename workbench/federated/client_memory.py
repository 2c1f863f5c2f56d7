"""What a client keeps between rounds; a replayed round finds the state before it."""

import os
import pathlib

from safetensors.numpy import load_file, save_file

from workbench.federated.methods.base import Arrays
from workbench.federated.task import FederatedTask

#: Beginnings of the names: the method's own arrays, and what compression has not sent yet.
METHOD, FEEDBACK = "method/", "feedback/"
#: A run can go back to the round before its last: states back to there are kept.
ROUNDS_BACK = 2


def is_stateful(task: FederatedTask) -> bool:
    """Whether a client of this task keeps anything between rounds."""
    return task.method.stateful or bool(task.compression and task.compression.stateful)


class ClientMemory:
    """One client's arrays, a file for each round in which it trained."""

    def __init__(self, run_dir: str | os.PathLike, client: int):
        self.folder = pathlib.Path(run_dir) / "clients" / f"{client:06d}"

    def before(self, number: int) -> tuple[int, Arrays]:
        """The last round before ``number`` in which the client trained, and what it kept then."""
        found = [each for each in self._rounds() if each < number]
        if not found:
            return 0, {}
        path = self._path(found[-1])
        try:
            return found[-1], load_file(path)
        except Exception as error:
            raise ValueError(f"{path} can't be read: {error}. Delete it to start from 0.") from None

    def write(self, number: int, arrays: Arrays) -> None:
        """Keep arrays as those of a round; the file gets its name when it is complete."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"partial-{os.getpid()}"
        save_file({k: a.copy() for k, a in arrays.items()}, partial)
        partial.replace(self._path(number))
        rounds = self._rounds()
        needed = [each for each in rounds if each <= number - ROUNDS_BACK][-1:]
        for old in rounds:
            if old <= number - ROUNDS_BACK and old not in needed:
                self._path(old).unlink()

    def _rounds(self) -> list[int]:
        return sorted(int(path.stem) for path in self.folder.glob("*.safetensors"))

    def _path(self, number: int) -> pathlib.Path:
        return self.folder / f"{number:06d}.safetensors"


def part(arrays: Arrays, prefix: str) -> Arrays:
    """The arrays whose names begin with ``prefix``, without it."""
    return {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)}


def named(arrays: Arrays, prefix: str) -> Arrays:
    """The arrays with ``prefix`` before their names."""
    return {f"{prefix}{name}": array for name, array in arrays.items()}
