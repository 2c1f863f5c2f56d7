"""Exercises on attacks and robust rules: how loud a liar must be, trimming, Krum, breakdown."""

import numpy as np
import torch

from workbench.exercises.checking import Case, Exercise, by_cases


def _scales(rng):
    from workbench.federated.attack import flip_sign

    cases = []
    for clients in (5, 8, 20):
        attackers = rng.randint(1, clients // 2)
        opposite = -float(flip_sign({"x": torch.ones(1).numpy()}, 1.0)["x"][0])
        scale = (clients - attackers) * opposite / attackers
        cases.append(Case((clients, attackers), scale, f"{attackers} of {clients} clients attack"))
    return cases


check_turning_scale = Exercise(
    "Write f(clients, attackers): how many times as large must attackers send the opposite of an "
    "honest update so that the plain mean stands still? All honest clients send the same update.",
    (
        "Write the sum of all updates as a number of honest ones, and set it to 0.",
        "(clients - attackers) - attackers * scale = 0",
    ),
    by_cases(
        _scales,
        {
            "The attackers are not honest: leave them out of the honest sum.": lambda n, k: n / k,
            "The other way round.": lambda n, k: k / (n - k),
            "The size is asked for; that it is the opposite is said already.": lambda n, k: (
                1 - n / k
            ),
            "That is the scale for one attacker alone.": lambda n, k: n - 1,
        },
    ),
)


def _lists(rng):
    from workbench.federated.defence import trimmed_mean

    cases = []
    for clients, trim in ((5, 0.2), (8, 0.25), (7, 0.25), (11, 0.3)):
        values = [round(rng.uniform(-3, 3), 2) for _ in range(clients - 1)]
        values.insert(rng.randrange(clients), 50.0)
        expected = float(trimmed_mean(np.array(values)[:, None], trim)[0])
        cases.append(Case((values, trim), expected, f"{clients} values, trim={trim}"))
    return cases


def _cut(values, low, high):
    kept = sorted(values)[low : len(values) - high]
    return sum(kept) / len(kept)


check_trimmed_mean = Exercise(
    "Write f(values, trim): the mean of a list of numbers without its int(trim * n) largest and as "
    "many of its smallest.",
    (
        "Sort the list, then cut off both ends.",
        "With k = int(trim * n), keep sorted(values)[k : n - k] and take the mean of those.",
    ),
    by_cases(
        _lists,
        {
            "Nothing is cut off.": lambda values, trim: _cut(values, 0, 0),
            "Only the largest are cut off.": lambda values, trim: _cut(
                values, 0, int(trim * len(values))
            ),
            "int() rounds down.": lambda values, trim: _cut(
                values, round(trim * len(values)), round(trim * len(values))
            ),
            "Only half as many are cut off: `trim` is for each end.": lambda values, trim: _cut(
                values, int(trim * len(values)) // 2, int(trim * len(values)) // 2
            ),
        },
    ),
)


def _krum_cases(rng):
    from workbench.federated.defence import krum_scores

    cases, sizes = [], [(5, 1), (7, 2), (9, 3), (9, 2)]
    while len(cases) < len(sizes):
        clients, f = sizes[len(cases)]
        draw = torch.Generator().manual_seed(rng.randrange(10**6))
        updates = torch.randn(clients, 2, generator=draw, dtype=torch.float64)
        updates[:f] = updates[:f] * 0.3 + 4
        best = int(krum_scores(updates.numpy(), f).argmin())
        others = {_by_all(updates, f), _by_count(updates, f, 1)}
        if best not in others:  # so that common slips show
            given = (list(updates), f)
            cases.append(Case(given, best, f"{clients} clients, f={f}"))
    return cases


def _as_rows(updates):
    return torch.stack(list(updates))


def _by_count(updates, f, count):
    """Which row has the least sum of squared distances to its ``count`` nearest others."""
    distances = torch.cdist(_as_rows(updates), _as_rows(updates)) ** 2
    return int(distances.sort(1).values[:, 1 : 1 + count].sum(1).argmin())


def _by_all(updates, f):
    return _by_count(updates, f, len(updates) - 1)


check_krum_choice = Exercise(
    "Write f(updates, f): the number, counted from 0, of the client that Krum takes. updates is a "
    "list of tensors; a client's score is the sum of its squared distances to the n - f - 2 "
    "others that are nearest to it, and the least score wins.",
    (
        "For each client, sort its squared distances to all others and add the first n - f - 2.",
        "Leave out the client itself: its distance 0 is no neighbour's.",
    ),
    by_cases(
        _krum_cases,
        {
            "All others count there; only the n - f - 2 nearest do. (It is the client nearest to "
            "the mean, which attackers move.)": _by_all,
            "The client itself, at distance 0, counts as a neighbour there.": lambda updates, f: (
                _by_count(updates, f, len(updates) - f - 3)
            ),
            "Only the nearest one counts there.": lambda updates, f: _by_count(updates, f, 1),
        },
    ),
)


def _meant(rule, n):
    from workbench.federated.breakdown import RULES

    return RULES[rule].withstands(n)


def _most(rng):
    names = ("median", "Krum", "Bulyan")
    sizes = [(name, n) for name in names for n in rng.sample(range(7, 40), 3)]
    return [
        Case((name, n), _meant(name, n), f"{name} of {n} clients", note=f"it is {name}")
        for name, n in sizes
    ]


check_most_attackers = Exercise(
    "Write f(rule, n): the most attackers among n clients that a rule is meant for. The median "
    "needs fewer than half; Krum needs n >= 2f + 3; Bulyan needs n >= 4f + 3.",
    (
        "Solve each inequality for f and round down; Python's // does that.",
        "Fewer than half of n is (n - 1) // 2; for the others start with n - 3.",
    ),
    by_cases(
        _most,
        {
            "Half is not fewer than half.": lambda rule, n: (
                n // 2 if rule == "median" else _meant(rule, n)
            ),
            "Half is not fewer than half, and 3 have to be there beside the others.": (
                lambda rule, n: n // 4 if rule == "Bulyan" else n // 2
            ),
        },
    ),
)
