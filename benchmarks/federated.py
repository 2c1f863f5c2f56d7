"""What Flower costs: the same clients in a bare loop, behind the in-process Grid, at once, on Ray.

All ratios are of one run of this script, its ways in turn, so that a busy machine slows all. The
bare loop makes the same adapter swaps, training, evaluation and averaging without messages.
"""

import argparse
import time
import tracemalloc
from dataclasses import replace
from functools import partial
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F

from workbench.federated import FederatedTask, simulate
from workbench.federated.batched import train_together
from workbench.federated.history import same_weights
from workbench.federated.learner import Learner, torch_threads
from workbench.federated.lora import initial_adapter
from workbench.federated.partition import sample
from workbench.federated.vectorised import Rows, batches

SMALL = {"clients": 8, "rounds": 5}
MANY = 1000


def minilm():
    """The task of the overhead: 8 clients, 5 rounds, all train."""
    return FederatedTask(num_clients=8, clients_per_round=8, rounds=5, local_steps=5, batch_size=8)


def linear(clients, some=None, rounds=1, features=32, classes=10, each=20, **options):
    """A linear classifier of that many clients with made-up rows; a quarter is held out."""
    draw = np.random.default_rng(0)
    points = draw.normal(size=(clients * each, features)).round(3).tolist()
    labels = draw.integers(classes, size=clients * each).tolist()
    labels[:classes] = range(classes)
    rows = [
        {"client": f"{i // each:06d}", "features": x, "label": y,
         "split": "train" if i % 4 else "test"}
        for i, (x, y) in enumerate(zip(points, labels, strict=True))
    ]  # fmt: skip
    usual = {"local_steps": 5, "batch_size": 8, "lr": 0.05, "eval_examples": 8}
    return FederatedTask(
        model="linear", tune="head", dataset=rows, num_clients=clients,
        clients_per_round=some or clients, rounds=rounds, **usual | options,
    )  # fmt: skip


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


def bmm_loop(task, places, rows):
    """By hand: all clients' steps on batches that are drawn already, by batched products."""
    classes, features = int(rows.labels.max()) + 1, rows.features.shape[1]
    weight = torch.zeros(len(places), classes, features, requires_grad=True)
    bias = torch.zeros(len(places), 1, classes, requires_grad=True)
    optimizer = torch.optim.AdamW([weight, bias], lr=task.learning_rate, weight_decay=0.0)
    for step in range(task.local_steps):
        optimizer.zero_grad()
        x, y = rows.features[places[:, step]], rows.labels[places[:, step]]
        scores = torch.bmm(x, weight.transpose(1, 2)) + bias
        loss = F.cross_entropy(scores.flatten(0, 1), y.flatten(), reduction="sum") / x.shape[1]
        loss.backward()
        optimizer.step()
    mean = weight.detach().mean(0), bias.detach().mean(0)[0]
    return mean, F.cross_entropy(F.linear(rows.features, *mean), rows.labels).item()


def seconds_of(run):
    """Wall and processor seconds of a call, and what it returned."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def in_turn(ways, repeats):
    """``{way: [(wall, processor, result), ..]}``, after one warm round that is not counted."""
    found = {name: [] for name in ways}
    for i in range(repeats + 1):
        for name, run in ways.items():
            took = seconds_of(run)
            if i:
                found[name].append(took)
    return found


def middle(runs, which):
    """The median of one column."""
    return median(run[which] for run in runs)


def overhead(repeats):
    """Messages against the bare loop, on MiniLM; returns the task's in-process seconds."""
    task = minilm()
    ways = {"bare": lambda: bare_loop(task), "grid": lambda: simulate(task, progress=False)}
    found = in_turn(ways, repeats)
    one, other = found["bare"][0][2], found["grid"][0][2].weights
    largest = max(np.abs(one[k] - w).max() for k, w in other.items())
    walls = {name: middle(runs, 0) for name, runs in found.items()}
    cpus = {name: middle(runs, 1) for name, runs in found.items()}
    print(f"MiniLM, {task.num_clients} clients x {task.rounds} rounds, median of {repeats}")
    for name in ways:
        print(f"  {name:>5}: {walls[name]:7.2f} s (processor {cpus[name]:.2f} s)")
    wall, cpu = walls["grid"] / walls["bare"] - 1, cpus["grid"] / cpus["bare"] - 1
    print(f"  overhead: {wall:+.1%} of the wall time, {cpu:+.1%} of the processor's (goal: <= 5 %)")
    print(f"  same bits: {same_weights(one, other)}, largest difference {largest:.1g}")


def many(repeats):
    """One round of 1,000 clients: bare, by messages, all at once, and by hand."""
    task = linear(MANY)
    learner = Learner(task)
    rows = Rows.of([client.train for client in learner.clients])

    def by_hand():
        places, _ = batches(task, 1, rows, np.arange(MANY))
        with torch_threads(1):
            return bmm_loop(task, places, replace(rows, features=rows.features.float()))

    ways = {
        "bare": lambda: bare_loop(task),
        "grid": lambda: simulate(task, progress=False),
        "at once": lambda: simulate(task, engine="vectorised", progress=False),
        "by hand": by_hand,
    }
    found = in_turn(ways, repeats)
    walls = {name: middle(runs, 0) for name, runs in found.items()}
    print(f"{MANY} clients of a linear head, one round, median of {repeats}")
    for name, wall in walls.items():
        print(f"  {name:>7}: {wall * 1e3:8.1f} ms")
    more_ms = (walls["grid"] - walls["bare"]) / MANY * 1e3
    print(f"  messages: {more_ms:.2f} ms a client over the bare loop (goal: <= 1), "
          f"{walls['grid']:.2f} s in all (goal: < 2)")  # fmt: skip
    print(f"  at once / by hand: {walls['at once'] / walls['by hand']:.1f}x (goal: <= 3)")
    grid, once = (found[name][0][2].weights for name in ("grid", "at once"))
    print(f"  at once against messages: {max(np.abs(grid[k] - once[k]).max() for k in grid):.1g}")


def memory():
    """The largest heap of a run with 10 clients a round, by how many clients there are."""
    print("Python's largest heap of a run beyond its data, 10 clients a round")
    for clients in (100, 400, 1600):
        task = linear(clients, some=10)
        simulate(task, progress=False)
        tracemalloc.start()
        simulate(task, progress=False)
        print(f"  {clients:5d} clients: {tracemalloc.get_traced_memory()[1] / 1e6:7.1f} MB")
        tracemalloc.stop()


def together(repeats):
    """Clients' LoRA in one step against one after another, by tokens of a client's step."""
    print(f"MiniLM, {SMALL['clients']} clients, 5 steps, one after another / in one step")
    for pairs, tokens in ((1, 4), (1, 8), (2, 8), (2, 16), (4, 32), (8, 64)):
        words = " ".join(["stone"] * (tokens - 2))  # a mark stands before and after them
        rows = [
            {"client": str(client), "question": words, "answer": words, "split": split}
            for client in range(SMALL["clients"])
            for split in (*["train"] * 8, "test")
        ]
        task = replace(minilm(), dataset=rows, batch_size=pairs)
        learner = Learner(task)
        sent = dict.fromkeys(range(task.num_clients), learner.start())
        found = in_turn(
            {
                "in turn": partial(one_after_another, learner, sent),
                "in one": partial(train_together, learner, sent, 1),
            },
            repeats,
        )
        alone, joint = (middle(runs, 0) for runs in found.values())
        print(
            f"  {2 * pairs * tokens:5d} tokens: {alone:6.2f} s / {joint:6.2f} s = "
            f"{alone / joint:.2f}x (goal up to 32 tokens: >= 1.5)"
        )


def one_after_another(learner, sent):
    """Each client's training by itself."""
    return [learner.train(weights, client, 1) for client, weights in sent.items()]


def ray():
    """The same small task by messages in this process and on Ray, its start included."""
    task = linear(SMALL["clients"], rounds=SMALL["rounds"])
    simulate(task, progress=False)
    here = seconds_of(lambda: simulate(task, progress=False))[0]
    there = seconds_of(lambda: simulate(task, engine="ray", progress=False))[0]
    print(f"Ray, a linear head of {SMALL['clients']} clients x {SMALL['rounds']} rounds")
    print(f"  in-process {here:.2f} s, Ray {there:.2f} s: {there / here:.0f}x (goal: >= 50)")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--only", nargs="+", default=["overhead", "many", "memory", "together", "ray"]
    )
    given = parser.parse_args()
    print(__doc__)
    parts = {
        "overhead": lambda: overhead(given.repeats),
        "many": lambda: many(given.repeats),
        "memory": memory,
        "together": lambda: together(given.repeats),
        "ray": ray,
    }
    for name in given.only:
        parts[name]()


if __name__ == "__main__":
    main()
