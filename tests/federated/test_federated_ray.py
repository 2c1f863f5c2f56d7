"""The same bits in the processes that Ray starts."""

import dataclasses
import subprocess
import sys

import pytest

from workbench.federated import History, System, simulate
from workbench.federated.history import same_weights

RAY = """
import pathlib, sys
from workbench.federated import FederatedTask, simulate
task = FederatedTask.from_json(pathlib.Path(sys.argv[1], "task.json").read_text())
simulate(task, engine="ray", run_dir=pathlib.Path(sys.argv[1], "run"), progress=False)
"""


@pytest.mark.timeout(2400)
def test_ray_is_equal_to_the_bit(task, tmp_path):
    """In a process of its own: Ray leaves its children to the end of the process.

    On a simulated clock, too, and with a client that it leaves out. Ray waits 15 s for its own
    agent to start, however busy the machine is (github.com/ray-project/ray/issues/65983): this
    file runs last, and tries again until the others have ended.
    """
    task = dataclasses.replace(task, system=System(step_s=1.0, dropout=0.4))
    history = simulate(task, progress=False)
    assert any(each.failed for each in history.rounds)
    (tmp_path / "task.json").write_text(task.to_json())
    command = [sys.executable, "-c", RAY, str(tmp_path)]
    for _ in range(8):
        done = subprocess.run(command, capture_output=True, text=True)
        if "The current node timed out during startup" not in done.stderr:
            break
    said = [line for line in done.stderr.splitlines() if "dropped out (simulated)" not in line]
    assert (done.returncode, said) == (0, [])
    parallel = History.load(tmp_path / "run" / "round-0002", task)
    assert same_weights(parallel.weights, history.weights)
    assert [r.evaluation for r in parallel.rounds] == [r.evaluation for r in history.rounds]
    for told in ("uplink_bytes", "downlink_bytes", "failed", "simulated_s"):
        ours, theirs = ([getattr(r, told) for r in h.rounds] for h in (history, parallel))
        assert ours == theirs
