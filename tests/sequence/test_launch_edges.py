"""What may go wrong around a launch: odd ends of ranks, threads, interrupts, what ranks start."""

import ctypes
import os
import signal
import subprocess
import sys
import time
import types
from concurrent.futures import ThreadPoolExecutor

import IPython
import psutil
import pytest
import torch

from workbench import launch
from workbench.failure import RankError
from workbench.launch import run_local


def gone(pid, within_s=20.0):
    """Wait until a process has ended."""
    deadline = time.monotonic() + within_s
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def rank_only(rank, comm):
    return rank


def local_rank_only():
    """The same, but a rank need not import this file, and pytest with it, to find it."""
    return lambda rank, comm: rank


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (lambda: sys.exit(3), r"(?s)rank 1 of 2 raised.*SystemExit: 3"),
        (lambda: sys.exit(0), r"(?s)rank 1 of 2 raised.*SystemExit: 0"),
        (lambda: os._exit(0), "rank 1 of 2 died by exit code 0 before it returned a result"),
        (lambda: os._exit(7), "rank 1 of 2 died by exit code 7"),
        (lambda: (i for i in range(3)), r"(?s)rank 1 of 2 raised.*pickle.*generator"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "rank 1 of 2 died by signal SIGSEGV"),
    ],
    ids=["exit 3", "exit 0", "_exit 0", "_exit 7", "no pickle", "segfault"],
)
def test_odd_ends_are_told(end, message):
    with pytest.raises(RankError, match=message):
        run_local(lambda rank, comm: end() if rank else None, 2)


def test_the_first_error_is_told_not_those_that_follow_from_it():
    def fails(rank, comm):
        if rank == 1:
            time.sleep(0.2)
            raise KeyError("the cause")
        torch.distributed.barrier()  # fails when rank 1 has left

    for _ in range(3):
        with pytest.raises(RankError, match="the cause") as caught:
            run_local(fails, 3)
        assert caught.value.rank == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p": 0}, "ranks.*at least 1, got 0"),
        ({"p": True}, "ranks.*at least 1, got True"),
        ({"p": 1, "threads": 0}, "threads.*at least 1, got 0"),
        ({"p": 1, "timeout_s": 0}, "timeout_s must be more than 0 s and at most .*, got 0"),
    ],
)
def test_wrong_arguments_launch_nothing(arguments, message, monkeypatch):
    monkeypatch.setattr(launch, "_start", None)
    with pytest.raises(ValueError, match=message):
        run_local(rank_only, **arguments)


def test_more_ranks_than_cores():
    assert run_local(rank_only, 8) == list(range(8))


def test_threads_may_launch_at_once():
    main = sys.modules["__main__"]

    def total(rank, comm):
        x = torch.ones(1)
        torch.distributed.all_reduce(x)
        return x.item()

    with ThreadPoolExecutor(3) as pool:
        sums = list(pool.map(lambda p: run_local(total, p), [1, 2, 3, 2, 1]))
    assert sums == [[p] * p for p in (1, 2, 3, 2, 1)]
    assert sys.modules["__main__"] is main


def with_child(then):
    """Start a process that would outlive its rank, tell its id, and go on to ``then``."""

    def fn(rank, comm):
        child = subprocess.Popen(["sleep", "600"])
        return then(child.pid)

    return fn


def test_no_process_of_a_rank_outlives_the_run(tmp_path):
    [pid] = run_local(with_child(lambda pid: pid), 1)
    assert gone(pid)

    def hang(pid):
        (tmp_path / "pid").write_text(str(pid))
        time.sleep(600)

    with pytest.raises(TimeoutError, match="in hang"):
        run_local(with_child(hang), 1, timeout_s=2)
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_rank_that_hangs_with_the_interpreter_locked_is_stopped(tmp_path):
    def stuck(rank, comm):
        (tmp_path / "pid").write_text(str(os.getpid()))
        ctypes.PyDLL(None).sleep(600)  # holds the interpreter's lock

    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"(?s)ranks \[0\].*in stuck"):
        run_local(stuck, 1, timeout_s=2)
    assert time.monotonic() - started < 10
    assert gone(int((tmp_path / "pid").read_text()))


def test_the_time_limit_counts_from_the_call(monkeypatch):
    start = launch._start
    monkeypatch.setattr(launch, "_start", lambda *a: (time.sleep(1), start(*a)))
    with pytest.raises(TimeoutError, match="rank 0 is at"):
        run_local(lambda rank, comm: time.sleep(600), 1, timeout_s=0.5)


def test_an_interrupt_while_starting_leaves_no_rank(tmp_path, monkeypatch):
    """Also where the launching process has lost sight of a rank: the rank notices by itself."""

    def alive(rank, comm):
        time.sleep(600)

    def interrupted(processes, name, p, context):
        start(processes, name, p, context)
        pids.append(processes.pop().pid)
        raise KeyboardInterrupt

    start, pids = launch._start, []
    monkeypatch.setattr(launch, "_start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_local(alive, 2)
    assert gone(pids[0])


def test_a_dead_fork_server_is_told_and_replaced(tmp_path):
    def kills_it(rank, comm):
        (tmp_path / str(rank)).write_text(str(os.getpid()))
        torch.distributed.barrier()
        if rank == 0:
            os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)

    with pytest.raises(RankError, match="died"):
        run_local(kills_it, 2)
    assert all(gone(int((tmp_path / str(rank)).read_text())) for rank in range(2))
    assert run_local(rank_only, 2) == [0, 1]


def test_a_start_waits_for_a_dying_fork_server():
    """Killed, it refuses connections at once, but is gone only a little later."""

    class Dying:
        def __init__(self, target, args, daemon):
            refused.append(args)

        def start(self):
            if len(refused) < 3:
                raise ConnectionRefusedError

    processes, refused = [], []
    context = types.SimpleNamespace(Process=Dying)
    launch._start_one(processes, context, (0, "folder"))
    assert len(processes) == 1
    assert refused == [(0, "folder")] * 3


def test_a_fork_server_that_stays_dead_is_told(monkeypatch):
    class Dead:
        def __init__(self, **_):
            pass

        def start(self):
            raise EOFError

    monkeypatch.setattr(launch, "START_PAUSE_S", 0.0)
    processes = []
    with pytest.raises(EOFError):
        launch._start_one(processes, types.SimpleNamespace(Process=Dead), (0, "folder"))
    assert processes == []


def test_a_slow_start_is_explained(monkeypatch, capsys, caplog):
    monkeypatch.setattr(launch, "SLOW_START_S", 0.0)
    with caplog.at_level("INFO", "workbench.launch"):
        run_local(rank_only, 2)
    assert "Starting 2 ranks took" in caplog.text
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(IPython, "get_ipython", lambda: object())  # as in a notebook
    run_local(rank_only, 2)
    out, errors = capsys.readouterr()
    assert out.startswith("Starting 2 ranks took")
    assert errors == ""
    monkeypatch.setattr(launch, "SLOW_START_S", 60.0)
    run_local(rank_only, 2)
    assert capsys.readouterr().err == ""


def test_all_ranks_of_all_launches_are_forked_by_one_server():
    """What makes a launch quick; benchmarks/launch.py times it."""
    ranks = [pid for _ in range(2) for pid in run_local(lambda rank, comm: os.getppid(), 2)]
    assert len(set(ranks)) == 1
    assert ranks[0] != os.getpid()


def test_ranks_are_in_no_group_that_an_interrupt_reaches():
    groups = run_local(lambda rank, comm: (os.getpgid(0), os.getpid()), 2)
    assert all(group == pid for group, pid in groups)


def test_ranks_use_the_threads_that_they_are_given():
    assert run_local(lambda rank, comm: torch.get_num_threads(), 2) == [1, 1]
    assert run_local(lambda rank, comm: torch.get_num_threads(), 1, threads=2) == [2]
