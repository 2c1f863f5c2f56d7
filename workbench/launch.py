"""Run one function on p ranks: faked, in p local processes, or under torchrun."""

import contextlib
import logging
import multiprocessing
import os
import pathlib
import sys
import tempfile
import threading
import time
import types
from collections.abc import Iterator
from multiprocessing import connection
from typing import Any

import cloudpickle
import torch
import torch.distributed as dist

from workbench.box import nodes_joined
from workbench.comm import Comm
from workbench.dims import check_count
from workbench.failure import first_cause, result_file, where_it_hangs
from workbench.process import WATCH_S, RankFunction, kill_group, rank_main
from workbench.units import human_seconds

#: Ranks are forked from a server that has these modules loaded already. torch's optimizers load its
#: compiler when they are made: seconds in every rank, if it were not here.
PRELOAD = ["torch", "torch.distributed", "torch._dynamo", "workbench.step"]
#: How often a start is tried while the fork server dies, and the pause between two tries [s].
START_TRIES, START_PAUSE_S = 50, 0.1
#: A start that takes longer than this is explained to the user [s].
SLOW_START_S = 0.5
#: The longest timeout [s]: gloo can't count many more milliseconds.
LONGEST_S = 30 * 86_400
#: Starting ranks hides ``__main__`` for a moment: one thread at a time.
_STARTING = threading.Lock()


def run_fake(fn: RankFunction, p: int) -> Any:
    """``fn(0, comm)`` on rank 0 of ``p`` imaginary ranks, on meta tensors; nothing is sent."""
    with torch.device("meta"):
        return fn(0, Comm(p))


def run_local(
    fn: RankFunction,
    p: int,
    *,
    threads: int = 1,
    timeout_s: float = 300.0,
    start_method: str | None = None,
) -> list[Any]:
    """Run ``fn(rank, comm)`` in ``p`` processes on this machine; return each rank's result.

    Parameters
    ----------
    fn : callable
        May be defined in a notebook cell or be a closure: it travels by cloudpickle, and so do
        its results.
    p : int
        Ranks. With as many CUDA devices they use NCCL, one device each; else gloo.
    threads : int
        CPU threads that torch may use in each rank.
    timeout_s : float
        Longest time the whole run may take, starting included [s].
    start_method : {None, "forkserver", "spawn"}
        ``None`` is the fork server where there is one: its first call imports torch once, each
        later launch takes a fraction of a second. ``"spawn"`` imports torch in every rank.

    Raises
    ------
    ValueError
        If ``p`` or ``threads`` is no count, or the time limit is not positive.
    RankError
        If a rank raises (with its traceback), is killed (with the signal's name) or ends itself.
    TimeoutError
        If a rank has not finished in time; the message tells where each of them hangs.

    Notes
    -----
    Ranks meet through a file, so parallel runs never fight over a port. Whatever happens, also
    a KeyboardInterrupt, no rank outlives the call, nor does any process that a rank has started.
    """
    return _run_processes(fn, p, threads, timeout_s, start_method)


def run_box(
    fn: RankFunction,
    *,
    nodes: int = 2,
    ranks_per_node: int = 2,
    inter_bandwidth: float,
    latency: float | None = None,
    threads: int = 1,
    timeout_s: float = 300.0,
) -> list[Any]:
    """Run ``fn(rank, comm)`` on nodes that are joined by wires of a speed that you set.

    Nodes are network namespaces of this machine, their cards held to ``inter_bandwidth`` by the
    kernel. Ranks of one node are neighbours: rank 0 to ``ranks_per_node - 1`` are node 0's. Large
    messages travel in pieces, several at a time; the log has one record for all of them.

    Parameters
    ----------
    fn, threads, timeout_s
        As for `run_local`.
    nodes, ranks_per_node : int
        Their product is the number of ranks.
    inter_bandwidth : float
        Of each node's card, each way [bytes/s]; 1 Gbit/s is 125e6. All ranks of a node share it.
    latency : float or None
        Added on the way out of a card [s].

    Raises
    ------
    ValueError
        If a number is none, or latency is asked of a kernel that can't delay packets.
    NoBoxError
        If this machine can't make one: it takes Linux, iproute2 and the right to make network
        namespaces. `workbench.box.missing` tells without trying.
    RankError, TimeoutError
        As `run_local`.

    Examples
    --------
    >>> ranks = run_box(lambda rank, comm: comm.size, inter_bandwidth=125e6)  # doctest: +SKIP
    """
    check_count("nodes", nodes)
    check_count("ranks_per_node", ranks_per_node)
    with nodes_joined(nodes, inter_bandwidth, latency) as namespaces:
        place = [namespace for namespace in namespaces for _ in range(ranks_per_node)]
        return _run_processes(fn, len(place), threads, timeout_s, None, place)


def _run_processes(
    fn: RankFunction,
    p: int,
    threads: int,
    timeout_s: float,
    start_method: str | None,
    namespaces: list[str] | None = None,
) -> list[Any]:
    """Start ranks, each in its network namespace if there are any; return each one's result."""
    check_count("p (the number of ranks)", p)
    check_count("threads", threads)
    if not 0 < timeout_s <= LONGEST_S:
        raise ValueError(
            f"timeout_s must be more than 0 s and at most {LONGEST_S:,} s (30 days), got "
            f"{timeout_s!r}; take that where a run may last as long as it likes"
        )
    started = time.monotonic()
    if start_method is None:
        methods = multiprocessing.get_all_start_methods()
        start_method = "forkserver" if "forkserver" in methods else "spawn"
    if start_method == "forkserver":
        multiprocessing.set_forkserver_preload(PRELOAD)
    with tempfile.TemporaryDirectory(prefix="workbench-", ignore_cleanup_errors=True) as name:
        folder, processes = pathlib.Path(name), []
        (folder / "fn").write_bytes(cloudpickle.dumps((fn, p, threads, timeout_s)))
        for rank, namespace in enumerate(namespaces or []):
            (folder / f"{rank}.namespace").write_text(namespace)
        try:
            _start(processes, name, p, multiprocessing.get_context(start_method))
            _wait(processes, folder, started + timeout_s, timeout_s)
            return [torch.load(result_file(folder, rank), weights_only=False) for rank in range(p)]
        finally:
            _end(processes)


def _start(processes: list[Any], name: str, p: int, context: Any) -> None:
    """Start ``p`` ranks, appending each to ``processes`` before it runs."""
    started = time.monotonic()
    with _STARTING, _no_main_module():
        for rank in range(p):
            _start_one(processes, context, (rank, name))
    taken = time.monotonic() - started
    if taken > SLOW_START_S and context.get_start_method() == "forkserver":
        ranks = "1 rank" if p == 1 else f"{p} ranks"
        why = "The first start of a session loads torch, once; a busy machine delays any."
        _explain(f"Starting {ranks} took {human_seconds(taken)}. {why}")


def _start_one(processes: list[Any], context: Any, arguments: tuple[int, str]) -> None:
    """Start a rank; where the fork server is just dying, wait until it can be replaced."""
    for left in reversed(range(START_TRIES)):
        processes.append(context.Process(target=rank_main, args=arguments, daemon=True))
        try:
            return processes[-1].start()
        except (ConnectionError, EOFError):
            processes.pop()
            if not left:
                raise
            time.sleep(START_PAUSE_S)


def _explain(text: str) -> None:
    """Print in a notebook, where stderr looks like an error; log in a script."""
    if "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None:
        print(text)
    else:
        logging.getLogger(__name__).info(text)


def _end(processes: list[Any]) -> None:
    """Kill what still runs of the ranks and of the processes that they have started."""
    begun = [process for process in processes if process.pid is not None]
    for process in begun:
        kill_group(process.pid)
        process.kill()
    for process in begun:
        process.join()
        process.close()


def run_torchrun(fn: RankFunction) -> list[Any] | None:
    """Run ``fn(rank, comm)`` in the process group that torchrun has set up by its variables.

    Returns
    -------
    list or None
        Every rank's result on rank 0, ``None`` on the others.
    """
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        rank, size = dist.get_rank(), dist.get_world_size()
        result = fn(rank, Comm(size, rank, dist.group.WORLD))
        results = [None] * size if rank == 0 else None
        dist.gather_object(result, results)
        return results
    finally:
        dist.destroy_process_group()


def local_device() -> torch.device:
    """Where this rank computes: its CUDA device if it has one, else the CPU."""
    if dist.is_initialized() and dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Hide ``__main__``: a rank needs nothing of it, and a script must not be run p times over."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _wait(processes: list[Any], folder: pathlib.Path, deadline: float, timeout_s: float) -> None:
    """Return when all ranks are done; raise as soon as one has failed, or in the end."""
    running = dict(enumerate(processes))
    while running:
        left = deadline - time.monotonic()
        sentinels = [process.sentinel for process in running.values()]
        connection.wait(sentinels, min(max(left, 0), WATCH_S))
        done = [rank for rank, process in running.items() if process.exitcode is not None]
        if any(processes[rank].exitcode or not result_file(folder, rank).exists() for rank in done):
            raise first_cause(processes, folder)
        if not done and left <= 0:
            raise where_it_hangs(running, folder, timeout_s)
        for rank in done:
            del running[rank]
