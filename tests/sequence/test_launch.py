"""Ranks start, fail, hang and end as promised, and leave nothing behind."""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import psutil
import pytest
import torch

from workbench.failure import RankError
from workbench.launch import run_local


def leftovers():
    """Children other than multiprocessing's own servers, open files, folders."""
    servers = ("forkserver", "resource_tracker")
    me = psutil.Process()
    ranks = [
        child.pid
        for child in me.children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE
        and not any(s in c for s in servers for c in child.cmdline())
    ]
    return ranks, me.num_fds(), list(pathlib.Path(tempfile.gettempdir()).iterdir())


def shared_memory():
    kinds = ("torch_*", "psm_*", "sem.*")  # what torch and Python make there
    return {path for kind in kinds for path in pathlib.Path("/dev/shm").glob(kind)}


def total(rank, comm):
    x = torch.full((4,), float(rank))
    torch.distributed.all_reduce(x)
    return x.sum().item()


def test_many_calls_leak_nothing(tmp_path, monkeypatch):
    run_local(total, 2)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before, shared = leftovers(), shared_memory()
    for _ in range(5):
        assert run_local(total, 3) == [12.0] * 3
        with pytest.raises(RankError):
            run_local(raises, 2)
    assert leftovers() == before
    # Other tests may be running beside this one; what is theirs goes away again.
    new, until = shared_memory() - shared, time.monotonic() + 60
    while new & shared_memory() and time.monotonic() < until:
        time.sleep(0.1)
    assert not new & shared_memory()


def raises(rank, comm):
    if rank == 1:
        raise KeyError("the planted mistake")
    torch.distributed.barrier()


def test_an_exception_arrives_with_the_ranks_own_traceback():
    with pytest.raises(RankError, match=r"(?s)rank 1 of 3.*in raises.*KeyError.*planted") as caught:
        run_local(raises, 3)
    assert caught.value.rank == 1


def test_a_killed_rank_is_named():
    def killed(rank, comm):
        if rank == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        torch.distributed.barrier()

    with pytest.raises(RankError, match="rank 2 of 3 died by signal SIGKILL"):
        run_local(killed, 3)


def test_a_hung_rank_is_reported_with_its_stack():
    def hung(rank, comm):
        if rank == 1:
            time.sleep(600)

    with pytest.raises(TimeoutError, match=r"(?s)ranks \[1\].*after 3 s.*hung"):
        run_local(hung, 2, timeout_s=3)
    assert leftovers()[0] == []


def test_spawn_runs_the_same():
    assert run_local(total, 2, start_method="spawn") == [4.0] * 2


SCRIPT = """
import os, time
import workbench as wb

def pid(rank, comm):
    open(f"{folder}/{{rank}}", "w").write(str(os.getpid()))
    time.sleep({seconds})
    return rank

print(wb.run_local(pid, 2))
"""


def started(folder, seconds):
    script = folder / "script.py"
    script.write_text(
        SCRIPT.format(folder=folder, seconds=seconds).replace("{folder}", str(folder))
    )
    return subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_script_without_a_guard_works(tmp_path):
    out, errors = started(tmp_path, 0).communicate(timeout=600)
    assert out == "[0, 1]\n", errors


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_rank_outlives_its_parent(tmp_path, how):
    script = started(tmp_path, 600)
    deadline = time.monotonic() + 120
    while not all(
        (tmp_path / str(rank)).exists() and (tmp_path / str(rank)).read_text() for rank in range(2)
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    pids = [int((tmp_path / str(rank)).read_text()) for rank in range(2)]
    script.send_signal(how)
    _, errors = script.communicate(timeout=300)
    assert how == signal.SIGKILL or "KeyboardInterrupt" in errors
    deadline = time.monotonic() + 30
    while any(psutil.pid_exists(pid) for pid in pids):
        assert time.monotonic() < deadline, pids
        time.sleep(0.05)


def test_torchrun_runs_the_same_step():
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "4"]
    command += ["-m", "workbench.step", "--strategy", "ring", "--layers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout.startswith("ring, 4 ranks, float32"), done.stderr
    assert done.stdout.count("predicted +0 B") == 3


def test_command_line(capsys):
    from workbench.step import main

    main(["--strategy", "dsp", "--p", "2", "--shard", "space", "--batch", "2"])
    assert capsys.readouterr().out.count("predicted +0 B") == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--strategy", "ulysses", "--p", "3"], "num_heads=4, p=3. Strategies that would run"),
        (["--layers", "0"], "num_layers must be an integer of at least 1"),
    ],
)
def test_the_command_line_refuses_in_a_line(capsys, arguments, message):
    from workbench.step import main

    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err
