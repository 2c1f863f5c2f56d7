"""Exercises on unlike clients: dealing rows, waiting for the slow, holding clients together."""

from itertools import accumulate, pairwise

import numpy as np
import torch

from workbench.exercises.checking import Case, Exercise, by_cases


def _cuts(rng):
    cases = []
    for clients in (3, 4, 6):
        told_apart = False
        while not told_apart:  # by luck, another rounding can be right
            rows, seed = rng.randint(30, 60), rng.randrange(10**6)
            shares, dealt = _dealt_by_flower(rows, clients, seed)
            one_by_one = [[say(rows * share) for share in shares] for say in (int, round)]
            told_apart = dealt not in [_ends(rows, shares, round), *one_by_one]
            told_apart &= int(rows * sum(shares)) == rows  # floats may add up to less than 1
        where = f"{rows} rows, shares {[round(share, 3) for share in shares]}"
        cases.append(Case((rows, shares), dealt, where))
    return cases


def _dealt_by_flower(rows, clients, seed):
    """Shares that add up to 1, and how many rows of one source flwr-datasets deals by them."""
    from datasets import Dataset
    from workbench.federated.options import Dirichlet

    partitioner = Dirichlet(2.0).partitioner(clients, seed)
    partitioner.dataset = Dataset.from_dict({"source": ["a"] * rows}).with_format("arrow")
    shares = np.random.default_rng(seed).dirichlet([2.0] * clients).tolist()
    return shares, [len(partitioner.load_partition(client)) for client in range(clients)]


def _ends(rows, shares, say):
    sums = [say(total * rows) for total in accumulate(shares[:-1])]
    return [b - a for a, b in pairwise([0, *sums, rows])]


check_dealt_rows = Exercise(
    "Write f(rows, shares), which returns how many rows of a source each client gets. Cut at the "
    "running sums of the shares times rows, each rounded down; the last client gets what is left.",
    (
        "Rows are whole. Rounded one by one, shares may add up to one row too many or too few.",
        "Client k gets int(rows x sum of shares up to k) minus the same for the clients before.",
    ),
    by_cases(
        _cuts,
        {
            "Each share is rounded by itself, so some row goes missing or is dealt twice.": (
                lambda rows, shares: [int(rows * share) for share in shares]
            ),
            "Those are the places of the cuts; how many rows lie between them?": (
                lambda rows, shares: [int(rows * sum(shares[: k + 1])) for k in range(len(shares))]
            ),
            "Round down, as int() does; round() goes to the nearest.": lambda rows, shares: _ends(
                rows, shares, round
            ),
            "Those are shares, not whole rows.": lambda rows, shares: [rows * s for s in shares],
        },
    ),
)


def _waits(rng):
    cases, seed = [], rng.randrange(10**6)
    known, _ = _clock(seed, 1e6)
    notes = {1e6: "nobody is late", 1e-3: "everybody is late"}
    notes[sorted(known)[3]] = "somebody is due exactly at the deadline"
    for deadline in (1.2, 2.0, *notes):
        due, used = _clock(seed if deadline in known else rng.randrange(10**6), deadline)
        seconds = max(due) if len(used) == len(due) else deadline
        where = f"due after {[round(t, 3) for t in due]} s, the deadline is {deadline:.4g} s"
        note = notes.get(deadline, "some are late")
        cases.append(Case((due, deadline), (used, seconds), where, note=note))
    return cases


def _clock(seed, deadline):
    """When each of 6 clients is due on the simulated clock [s], and who is in time."""
    from workbench.federated import FederatedTask, System
    from workbench.federated.clock import simulated_round
    from workbench.federated.options.compression import Spec

    system = System(speed_sigma=0.8, deadline_s=deadline, step_s=0.3)
    task = FederatedTask(num_clients=6, clients_per_round=6, seed=seed, system=system)
    done = simulated_round(task, 1, {"a": Spec((8, 8))})
    due = [float(done.due_s[c]) for c in done.asked]
    return due, [c for c in done.asked if c not in done.left_out]


def _in_time(due, deadline):
    return [i for i, t in enumerate(due) if t <= deadline]


check_deadline = Exercise(
    "Write f(due, deadline): due[i] is when client i's answer would be there [s]. Return two "
    "things: the list of clients whose updates are used, and how long the server waits. It stops "
    "as soon as all have answered, or at the deadline.",
    (
        "A client that is due exactly at the deadline is in time. Who is used needs no sum.",
        "If all are in time, the server waits for the slowest; if one is not, for the deadline.",
    ),
    by_cases(
        _waits,
        {
            "The server can't know that no more will come: it waits until the deadline.": (
                lambda due, deadline: (
                    _in_time(due, deadline),
                    max([due[i] for i in _in_time(due, deadline)], default=0.0),
                )
            ),
            "If all have answered before, it needn't wait for the deadline.": (
                lambda due, deadline: (_in_time(due, deadline), deadline)
            ),
            "Clients work side by side: their times don't add up.": lambda due, deadline: (
                _in_time(due, deadline),
                min(sum(due), deadline),
            ),
            "The server doesn't wait for those that are late.": lambda due, deadline: (
                _in_time(due, deadline),
                max(due),
            ),
            "Two things are asked for: the list, and the seconds.": _in_time,
            "Whoever is due exactly at the deadline is in time.": lambda due, deadline: (
                [i for i, t in enumerate(due) if t < deadline],
                deadline if any(t >= deadline for t in due) else max(due),
            ),
            "Those are the late ones.": lambda due, deadline: (
                [i for i, t in enumerate(due) if t > deadline],
                min(max(due), deadline),
            ),
        },
    ),
)


def _pulls(rng):
    cases = []
    for mu in (0.01, 0.1, 1.5):
        draw = torch.Generator().manual_seed(rng.randrange(10**6))
        shape = (rng.randint(2, 4), rng.randint(2, 4))
        g, w, start = (torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(3))
        expected = g + mu * (w - start)
        cases.append(Case((g, w, start, mu), expected, f"mu={mu:g}, weights of shape {shape}"))
    return cases


check_proximal_gradient = Exercise(
    "Write f(gradient, w, start, mu): the gradient of loss + mu/2 |w - start|^2, where `gradient` "
    "is that of the loss alone, w the client's weights now and start those the server sent.",
    (
        "The derivative of mu/2 x^2 is mu x. What is x here?",
        "The pull points from the start to w; a step against the gradient then leads back.",
    ),
    by_cases(
        _pulls,
        {
            "The sign: that pushes the client away from the server.": lambda g, w, start, mu: (
                g - mu * (w - start)
            ),
            "The half is gone after the derivative of the square.": lambda g, w, start, mu: (
                g + mu / 2 * (w - start)
            ),
            "That pulls to 0 (weight decay), not to what the server sent.": (
                lambda g, w, start, mu: g + mu * w
            ),
            "The pull replaces the loss's own gradient there; it comes on top.": (
                lambda g, w, start, mu: mu * (w - start)
            ),
        },
    ),
)
