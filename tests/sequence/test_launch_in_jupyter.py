"""Launching from a real Jupyter kernel: cells' own functions and classes, and an interrupt."""

import time

import psutil
import pytest
from jupyter_client.manager import start_new_kernel

DEFINITIONS = """
import os, pathlib, time
from dataclasses import dataclass
import workbench as wb

@dataclass
class Answer:
    rank: int

def answer(rank, comm):
    return Answer(rank)

class Mine(wb.STRATEGIES["dsp"]):
    name = "mine"
"""
HANG = """
def hang(rank, comm):
    (pathlib.Path({folder!r}) / str(rank)).write_text(str(os.getpid()))
    time.sleep(600)
wb.run_local(hang, 3)
"""


@pytest.fixture(scope="module")
def kernel():
    manager, client = start_new_kernel(kernel_name="python3")
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def value_of(client, expression, code=""):
    """Run a cell and return the repr of an expression after it."""
    request = client.execute(code, user_expressions={"it": expression})
    while (reply := client.get_shell_msg(timeout=600))["parent_header"]["msg_id"] != request:
        pass
    assert reply["content"]["status"] == "ok", reply["content"]
    return reply["content"]["user_expressions"]["it"]["data"]["text/plain"]


def test_what_cells_define_travels_to_the_ranks_and_back(kernel):
    _, client = kernel
    found = value_of(client, "wb.run_local(answer, 2) == [Answer(0), Answer(1)]", DEFINITIONS)
    assert found == "True"
    step = "wb.run_step(wb.PRESETS['toy-video'], Mine, p=2)"
    assert value_of(client, f"(lambda s: (s.strategy, s.max_error < 1e-5))({step})") == (
        "('mine', True)"
    )


def test_an_interrupt_stops_all_ranks(kernel, tmp_path):
    manager, client = kernel
    value_of(client, "0", DEFINITIONS)
    request = client.execute(HANG.format(folder=str(tmp_path)))
    files = [tmp_path / str(rank) for rank in range(3)]
    deadline = time.monotonic() + 60
    while not all(f.exists() and f.read_text() for f in files):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    manager.interrupt_kernel()
    while (reply := client.get_shell_msg(timeout=150))["parent_header"]["msg_id"] != request:
        pass
    assert reply["content"]["ename"] == "KeyboardInterrupt"
    assert not any(psutil.pid_exists(int(f.read_text())) for f in files)
    assert value_of(client, "[a.rank for a in wb.run_local(answer, 4)]") == "[0, 1, 2, 3]"
