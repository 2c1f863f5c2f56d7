"""What Flower costs: the same clients in a bare loop, behind the in-process Grid, and on Ray."""

import time

import numpy as np

from workbench.federated import FederatedTask, simulate
from workbench.federated.history import same_weights
from workbench.federated.learner import Learner
from workbench.federated.lora import initial_adapter
from workbench.federated.partition import sample

TASK = FederatedTask(num_clients=4, clients_per_round=2, rounds=2, local_steps=4, batch_size=8)
REPEATS = 2


def bare_loop(task):
    """The same training and evaluation without messages; returns the adapter."""
    learner, weights = Learner(task), initial_adapter(task)
    everyone = range(task.num_clients)
    for client in everyone:
        learner.evaluate(weights, client)
    for number in range(1, task.rounds + 1):
        clients = sample(task, number)
        sizes = [len(learner.clients[client].train) for client in clients]
        shares = [size / sum(sizes) for size in sizes]
        updates = [learner.train(weights, client, number)[0] for client in clients]
        weights = {
            name: sum(share * each[name] for share, each in zip(shares, updates, strict=True))
            for name in weights
        }
        for client in everyone:
            learner.evaluate(weights, client)
    return weights


def seconds_of(run):
    """Wall and processor seconds of a call, and what it returned."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def main() -> None:
    """Print the table."""
    seconds_of(lambda: bare_loop(TASK))  # the first run warms torch up
    bare, grid = [], []
    for _ in range(REPEATS):  # in turn, so that a busy machine slows both
        bare.append(seconds_of(lambda: bare_loop(TASK)))
        grid.append(seconds_of(lambda: simulate(TASK, progress=False)))
    same = same_weights(bare[0][2], grid[0][2].weights)
    largest = max(np.abs(bare[0][2][k] - w).max() for k, w in grid[0][2].weights.items())
    (bare_s, bare_cpu), (grid_s, grid_cpu) = (
        [min(run[i] for run in runs) for i in (0, 1)] for runs in (bare, grid)
    )
    print(f"bare loop:       {bare_s:6.2f} s (processor {bare_cpu:.2f} s), best of {REPEATS}")
    print(f"in-process Grid: {grid_s:6.2f} s (processor {grid_cpu:.2f} s)")
    wall, cpu = grid_s / bare_s - 1, grid_cpu / bare_cpu - 1
    print(f"overhead: {wall:+.1%} of the wall time, {cpu:+.1%} of the processor's (goal: <= 5 %)")
    print(f"same bits: {same}, largest difference {largest:.1g}")
    ray_s, _, _ = seconds_of(lambda: simulate(TASK, engine="ray", progress=False))
    print(f"Ray:             {ray_s:6.2f} s, {ray_s / grid_s:.1f}x in-process, its start included")


if __name__ == "__main__":
    main()
