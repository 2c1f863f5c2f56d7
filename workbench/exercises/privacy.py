"""Exercises on privacy: masks that cancel, a private mean, tokens in an update."""

import numpy as np
import torch

from workbench.exercises.checking import Case, Exercise, by_cases


def _masks(rng):
    """Targets by the definition; the sum, which masks must leave alone, is checked by Flower's."""
    cases = []
    for clients in (2, 3, 5):
        modulus = 2 ** rng.randint(6, 12)
        values = [rng.randrange(modulus // clients) for _ in range(clients)]
        masks = {
            (i, j): rng.randrange(1, modulus) for i in range(clients) for j in range(i + 1, clients)
        }
        expected = [_masked(values, masks, modulus, k) for k in range(clients)]
        if sum(expected) % modulus != sum(values):
            raise AssertionError("masks don't cancel")
        where = f"{clients} clients, values {values}, modulus {modulus}"
        cases.append(Case((values, masks, modulus), expected, where))
    return cases


def _masked(values, masks, modulus, k, sign=1):
    added = sum(mask for (i, _), mask in masks.items() if i == k)
    taken = sum(mask for (_, j), mask in masks.items() if j == k)
    return (values[k] + sign * (added - taken)) % modulus


def _all(values, masks, modulus, sign=1):
    return [_masked(values, masks, modulus, k, sign) for k in range(len(values))]


check_masks = Exercise(
    "Write f(values, masks, modulus), which returns what each client sends. masks[i, j], with "
    "i < j, is known to clients i and j only: i adds it, j takes it away; all modulo `modulus`.",
    (
        "A client takes part in as many masks as there are other clients.",
        "Begin with a copy of values; for each pair add the mask at i and take it away at j. "
        "Then take each number modulo `modulus`.",
    ),
    by_cases(
        _masks,
        {
            "The signs are the other way round: the first of a pair adds.": lambda v, m, n: _all(
                v, m, n, sign=-1
            ),
            "Without the modulus a large number gives its client away.": lambda v, m, n: [
                _masked(v, m, 10**9, k) - (10**9 if _masked(v, m, 10**9, k) > 10**8 else 0)
                for k in range(len(v))
            ],
            "Both of a pair add: these masks don't cancel in the sum.": lambda v, m, n: [
                (v[k] + sum(mask for pair, mask in m.items() if k in pair)) % n
                for k in range(len(v))
            ],
        },
    ),
)


def _private(rng):
    from workbench.federated import CentralDP, FederatedTask
    from workbench.federated.joining import private_mean
    from workbench.federated.methods.base import ServerState, Update
    from workbench.federated.partition import NOISE, generator

    cases = []
    for answered, asked in ((2, 4), (4, 4), (3, 6)):
        clip, shape = round(rng.uniform(0.5, 2.0), 2), (rng.randint(2, 4), rng.randint(2, 4))
        privacy = CentralDP(1.0, clip_norm=clip)
        task = FederatedTask(
            num_clients=8, clients_per_round=asked, privacy=privacy, seed=rng.randrange(10**6)
        )
        draw = np.random.default_rng(rng.randrange(10**6))
        changes = [draw.normal(size=shape) * rng.choice([0.05, 3.0]) for _ in range(answered - 1)]
        changes.append(draw.normal(size=shape) * 3.0)
        server = ServerState({"w": np.zeros(shape)})
        updates = [Update(i, {"w": change}, 1, 0.0) for i, change in enumerate(changes)]
        noise = generator(task.seed, NOISE, 1).normal(0.0, clip, shape)
        expected = torch.from_numpy(private_mean(task, server, updates, 1)["w"])
        tensors = [torch.from_numpy(change) for change in changes]
        where = f"{answered} changes of shape {shape}, {asked} clients expected, C = {clip}"
        cases.append(Case((tensors, clip, torch.from_numpy(noise), asked), expected, where))
    return cases


def _clip(change, most):
    return change * min(1.0, most / float(change.norm()))


check_private_mean = Exercise(
    "Write f(changes, clip_norm, noise, expected), which returns the mean of CentralDP: each "
    "change is clipped, the noise is added to their sum, and the sum is divided by the number of "
    "clients that were expected.",
    (
        "Clipping: a change that is longer than clip_norm is shortened to it; others stay.",
        "change * min(1, clip_norm / change.norm()); then (sum + noise) / expected.",
    ),
    by_cases(
        _private,
        {
            "The changes are not clipped: one client could move the mean as far as it likes.": (
                lambda c, most, noise, n: (sum(c) + noise) / n
            ),
            "The divisor is the expected number of clients, whoever answers.": (
                lambda c, most, noise, n: (sum(_clip(x, most) for x in c) + noise) / len(c)
            ),
            "The noise belongs to the sum: it is divided, too.": (
                lambda c, most, noise, n: sum(_clip(x, most) for x in c) / n + noise
            ),
            "The noise is missing.": lambda c, most, noise, n: sum(_clip(x, most) for x in c) / n,
            "Each number is clipped; what counts is the length of the whole change.": (
                lambda c, most, noise, n: (sum(x.clamp(-most, most) for x in c) + noise) / n
            ),
            "Short changes are stretched: clipping never makes longer.": (
                lambda c, most, noise, n: (sum(x * most / x.norm() for x in c) + noise) / n
            ),
        },
    ),
)


def _spans(rng):
    from workbench.federated.leakage import in_span

    cases = []
    for rank, tokens in ((4, 2), (6, 3), (8, 5)):
        draw = np.random.default_rng(rng.randrange(10**6))
        seen = draw.normal(size=(rng.randint(20, 30), rank))
        true = sorted(rng.sample(range(len(seen)), tokens))
        change = draw.normal(size=(rng.randint(10, 15), tokens)) @ seen[true]
        found = in_span(seen, change)
        where = f"{len(seen)} tokens in the vocabulary, rank {rank}, {tokens} in the text"
        given = (torch.from_numpy(seen), torch.from_numpy(change))
        cases.append(Case(given, list(found.tokens), where))
    return cases


def _lies(seen, change, tolerance=1e-6):
    _, sizes, directions = torch.linalg.svd(change, full_matrices=False)
    rows = directions[sizes / sizes[0] > tolerance]
    return (seen - seen @ rows.T @ rows).norm(dim=1)


check_tokens = Exercise(
    "Write f(seen, change), which returns the sorted list of the tokens that the text held: those "
    "whose row of seen is a mixture of the rows of change.",
    (
        "A row is a mixture of others if adding it to them doesn't raise the rank of the table.",
        "torch.linalg.matrix_rank(change) once; then for each token that of torch.cat([change, "
        "seen[t : t + 1]]). Equal ranks: the token was there.",
    ),
    by_cases(
        _spans,
        {
            "Those are the others: these rows are no mixtures.": lambda seen, change: (
                (_lies(seen, change) > 1e-6).nonzero().flatten().tolist()
            ),
            "A row may be a mixture of several rows, not a multiple of one alone.": (
                lambda seen, change: [
                    t for t, row in enumerate(seen)
                    if max(abs(torch.cosine_similarity(change, row[None]))) > 1 - 1e-9
                ]
            ),
            "That is every token.": lambda seen, change: list(range(len(seen))),
        },
    ),
)  # fmt: skip
