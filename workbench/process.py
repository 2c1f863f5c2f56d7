"""What one process of a run does: meet the others, compute, leave the result, end with the run."""

import contextlib
import datetime
import faulthandler
import gc
import multiprocessing
import os
import pathlib
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing import connection
from typing import Any

import cloudpickle
import torch
import torch.distributed as dist

from workbench.box import PIECE_BYTES, enter
from workbench.comm import Comm
from workbench.failure import result_file

RankFunction = Callable[[int, Comm], Any]
#: How often a rank looks whether its run is over, and a run whether its ranks live [s].
WATCH_S = 1.0


def rank_main(rank: int, name: str) -> None:
    """Do one rank's share of the run whose folder is ``name``, and leave the result there."""
    gc.freeze()  # what was there before needs no looking at
    folder = pathlib.Path(name)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # Ctrl-C goes to the launching process alone, which then ends this group
    namespace = folder / f"{rank}.namespace"
    if namespace.exists():
        enter(namespace.read_text())
    with (folder / f"{rank}.stack").open("w") as stack:
        if hasattr(faulthandler, "register"):
            faulthandler.register(signal.SIGUSR1, stack)
        threading.Thread(target=_die_with_run, args=(folder,), daemon=True).start()
        try:
            fn, p, threads, timeout_s = pickle.loads((folder / "fn").read_bytes())
            torch.set_num_threads(threads)
            result = _with_group(fn, rank, p, folder, timeout_s)
            unfinished = folder / f"{rank}.part"
            _save(result, unfinished)
            unfinished.rename(result_file(folder, rank))
        except BaseException:
            report = (time.time(), traceback.format_exc())
            (folder / f"{rank}.error").write_bytes(pickle.dumps(report))
            os._exit(1)


def _save(result: Any, path: pathlib.Path) -> None:
    """Write a result; logs of many records take a tenth of the time without cloudpickle."""
    try:
        torch.save(result, path)
    except (pickle.PicklingError, AttributeError, TypeError):  # of a class that stands nowhere
        torch.save(result, path, pickle_module=cloudpickle)


def _die_with_run(folder: pathlib.Path) -> None:
    """End this rank when the process that launched it is gone, or has given up the run."""
    parent = multiprocessing.parent_process().sentinel
    while folder.exists() and not connection.wait([parent], WATCH_S):
        pass
    kill_group(os.getpid())
    os._exit(1)


def _with_group(fn: RankFunction, rank: int, p: int, folder: pathlib.Path, timeout_s: float) -> Any:
    cuda = torch.cuda.is_available() and torch.cuda.device_count() >= p
    if cuda:
        torch.cuda.set_device(rank)
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        init_method=f"file://{folder.as_posix()}/rendezvous",
        rank=rank,
        world_size=p,
        timeout=datetime.timedelta(seconds=timeout_s),
    )
    dist.barrier()  # a rank that were done by now would leave while others are still connecting
    comm = Comm(p, rank, dist.group.WORLD)
    comm.piece_bytes = PIECE_BYTES if (folder / f"{rank}.namespace").exists() else None
    result = fn(rank, comm)
    # Not after an error: leaving makes the others fail, before this rank has told its own reason.
    dist.destroy_process_group()
    return result


def kill_group(pid: int) -> None:
    """End a rank and the processes that it has started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
