"""A federation on this machine against its simulation, and what becomes of it if parts are killed.

A SuperNode is killed in mid-round: the round goes on without it. The SuperLink is killed: the run
ends, and ``resume=True`` goes on after the last round. Both times the final weights are compared
with a simulation that had the same faults. ``--record`` keeps what happened for notebook 37.
"""

import argparse
import datetime
import pathlib
import tempfile
import time

import psutil

from workbench.federated import FederatedTask, checkpoint, run_deployment, simulate
from workbench.federated.history import same_weights
from workbench.federated.learner import Learner
from workbench.federated.processes import marked
from workbench.federated.recorded import Fault, keep, kind_of

TASK = FederatedTask(num_clients=2, clients_per_round=2, rounds=3, local_steps=5, batch_size=8)


class Told:
    """What a deployment tells and when; kills a process as soon as a line begins in some way."""

    def __init__(self, run_dir, beginning, words, killed):
        self.began, self.events = time.monotonic(), []
        self.run_dir, self.beginning, self.words, self.killed = run_dir, beginning, words, killed

    def __call__(self, line):
        print(f"{time.monotonic() - self.began:7.1f} s  {line}", flush=True)
        self.note(line)
        if self.beginning and line.startswith(self.beginning):
            self.beginning = None
            process_of(self.run_dir, *self.words).kill()
            self.note(self.killed)

    def note(self, text):
        seconds = round(time.monotonic() - self.began, 1)
        self.events.append({"seconds": seconds, "text": text, "kind": kind_of(text)})


def process_of(run_dir, *words):
    """The process of a deployment whose command has all the words."""
    for process in marked(str(run_dir.resolve())):
        try:
            if all(word in " ".join(process.cmdline()) for word in words):
                return process
        except psutil.NoSuchProcess:
            continue
    raise LookupError(f"no process of {run_dir} has {words}")


def rounds_of(history):
    """The rounds as the record keeps them."""
    return [
        {"number": r.number, "seconds": r.seconds, "eval_loss": r.eval_loss,
         "trained": sorted(r.trained), "failed": sorted(r.failed)}
        for r in history.rounds
    ]  # fmt: skip


def without_client(task, client, since, run_dir):
    """The simulation in which a client fails in every round from ``since`` on."""
    train = Learner.train

    def dying(self, weights, index, number, *others, **more):
        if index == client and number >= since:
            raise RuntimeError("dead")
        return train(self, weights, index, number, *others, **more)

    Learner.train = dying
    try:
        return simulate(task, run_dir=run_dir, progress=False)
    finally:
        Learner.train = train


def killed_node(task, folder):
    """SuperNode 1 is killed in the midst of round 2."""
    killed = "SuperNode 1 is killed"
    words = ("flower-supernode", "node-1.toml")
    told = Told(folder / "node", "round 1 of", words, killed)
    history = run_deployment(task, folder / "node", tell=told)
    simulated = without_client(task, 1, 2, folder / "node-simulated")
    same = same_weights(history.weights, simulated.weights)
    return Fault(f"{killed} in round 2", told.events, rounds_of(history), "", same)


def killed_link(task, folder, simulated):
    """The SuperLink is killed after round 1; the run is resumed."""
    killed, run_dir = "the SuperLink is killed", folder / "link"
    told = Told(run_dir, "round 1 of", ("flower-superlink",), killed)
    try:
        run_deployment(task, run_dir, tell=told)
        error = ""
    except RuntimeError as ended:
        error = str(ended).split(" Logs:")[0]
    told(f"the run ended: {error.split('.')[0]}")
    told("resume=True")
    history = run_deployment(task, run_dir, resume=True, tell=told)
    same = same_weights(history.weights, simulated.weights)
    return Fault(f"{killed} after round 1", told.events, rounds_of(history), error, same)


def main() -> None:
    """Deploy, kill, compare; print and perhaps keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help="keep it for the notebook")
    given = parser.parse_args()
    print(__doc__)
    with tempfile.TemporaryDirectory(prefix="workbench-benchmark-") as name:
        folder = pathlib.Path(name)
        simulated = simulate(TASK, progress=False)
        faults = [killed_node(TASK, folder), killed_link(TASK, folder, simulated)]
    ours = sum(each.seconds for each in simulated.rounds)
    deployed = sum(each["seconds"] for each in faults[1].rounds)
    print(f"rounds: simulated {ours:.1f} s, deployed {deployed:.1f} s ({deployed / ours:.1f}x)")
    for fault in faults:
        print(f"{fault.killed}: same bits as the simulation with that fault: {fault.same_bits}")
    if given.record:
        known = checkpoint.fingerprint(TASK)
        task = known["task"] | {"rounds": TASK.rounds}
        today = datetime.date.today().isoformat()
        print("kept in", keep(today, known["machine"], task, faults))


if __name__ == "__main__":
    main()
