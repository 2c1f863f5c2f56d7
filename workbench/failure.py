"""Why a run on several ranks has failed: what each of them left in the run's folder."""

import contextlib
import faulthandler
import os
import pathlib
import pickle
import signal
import time
from typing import Any

#: How long a failed or hung run waits for the ranks' last words [s].
GRACE_S = 0.25


class RankError(RuntimeError):
    """A rank raised or died; ``rank`` says which, the message has its own traceback."""

    def __init__(self, message: str, rank: int):
        super().__init__(message)
        self.rank = rank


def result_file(folder: pathlib.Path, rank: int) -> pathlib.Path:
    """Where a rank leaves its result."""
    return folder / f"{rank}.pt"


def first_cause(processes: list[Any], folder: pathlib.Path) -> RankError:
    """The first cause: a killed rank, else the error that was raised first."""
    p, until = len(processes), time.monotonic() + GRACE_S
    for process in processes:
        process.join(max(until - time.monotonic(), 0))
    for rank, process in enumerate(processes):
        code = process.exitcode
        said = (folder / f"{rank}.error").exists() or result_file(folder, rank).exists()
        if code is not None and not said:
            names = {number.value: number.name for number in signal.Signals}
            how = f"signal {names.get(-code, -code)}" if code < 0 else f"exit code {code}"
            return RankError(
                f"rank {rank} of {p} died by {how} before it returned a result. If the machine "
                "ran out of memory, try a smaller model, batch or p.",
                rank,
            )
    reports = {int(path.stem): pickle.loads(path.read_bytes()) for path in folder.glob("*.error")}
    rank = min(reports, key=lambda r: reports[r][0])
    return RankError(f"rank {rank} of {p} raised:\n\n{reports[rank][1]}", rank)


def where_it_hangs(running: dict[int, Any], folder: pathlib.Path, timeout_s: float) -> TimeoutError:
    """Ask the ranks that still run where they are."""
    for process in running.values():
        if hasattr(faulthandler, "register"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGUSR1)
    time.sleep(GRACE_S)
    stacks = []
    for rank in sorted(running):
        file = folder / f"{rank}.stack"
        stack = file.read_text() if file.exists() else "(it was still starting)\n"
        stacks.append(f"rank {rank} is at:\n{stack}")
    return TimeoutError(
        f"ranks {sorted(running)} had not finished after {timeout_s:g} s and were stopped. Give "
        f"them longer with timeout_s=..., or look where they hang:\n\n" + "\n".join(stacks)
    )
