"""Exercises on federated fine-tuning: joining updates, counting bytes, comparing runs."""

from math import prod, sqrt
from statistics import fmean, pstdev, stdev

import torch

from workbench.exercises.checking import Case, Exercise, by_cases


def _updates(rng):
    cases = []
    for clients in (2, 3, 5):
        draw = torch.Generator().manual_seed(rng.randrange(10**6))
        shape = (rng.randint(2, 4), rng.randint(2, 4))
        updates = [torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(clients)]
        rows = rng.sample(range(5, 200), clients)
        expected = torch.stack([n * u for n, u in zip(rows, updates, strict=True)]).sum(0)
        where = f"{clients} clients with {rows} rows, updates of shape {shape}"
        cases.append(Case((updates, rows), expected / sum(rows), where))
    return cases


check_weighted_mean = Exercise(
    "Write f(updates, rows), which joins the clients' tensors as FedAvg does: a client with twice "
    "as many rows counts twice as much.",
    (
        "Multiply each update by its client's share of all rows, then add them up.",
        "The shares add up to 1. If all updates are equal, the result is that update.",
    ),
    by_cases(
        _updates,
        {
            "Every client counts the same there.": lambda updates, rows: torch.stack(updates).mean(
                0
            ),
            "That is a sum, not a mean: the shares must add up to 1.": lambda updates, rows: sum(
                n * u for n, u in zip(rows, updates, strict=True)
            ),
            "The sizes are the wrong way round: small clients count most.": lambda updates, rows: (
                sum(u / n for n, u in zip(rows, updates, strict=True)) / sum(1 / n for n in rows)
            ),
        },
    ),
)


def _adapters(rng):
    from workbench.federated import FederatedTask
    from workbench.federated.lora import adapter_shapes

    cases = []
    for model in ("minilm", "smollm2-135m"):
        for rank in rng.sample((2, 3, 4, 6, 8, 12), 2):
            shapes = adapter_shapes(FederatedTask(model=model, lora_rank=rank))
            inputs = [shape[1] for name, shape in shapes.items() if "lora_A" in name]
            outputs = [shape[0] for name, shape in shapes.items() if "lora_B" in name]
            expected = 4 * sum(map(prod, shapes.values()))
            adapted = list(zip(outputs, inputs, strict=True))
            where = f"{model}, {len(adapted)} adapted weights, r={rank}"
            note = f"the model is {model}"
            cases.append(Case((adapted, rank), expected, where, note=note))
    return cases


check_adapter_bytes = Exercise(
    "Write f(weights, rank), which returns the bytes of the numbers that one client sends in a "
    "round. weights lists (outputs, inputs) of each weight that gets an adapter; float32.",
    (
        "An adapter has two factors: A has `rank` rows, B has `rank` columns.",
        "A is rank x inputs, B is outputs x rank; a float32 has 4 bytes. Add over the weights.",
    ),
    by_cases(
        _adapters,
        {
            "Those are numbers; bytes are asked for.": lambda weights, rank: sum(
                rank * (o + i) for o, i in weights
            ),
            "That is the whole weight, as without adapters.": lambda weights, rank: sum(
                4 * o * i for o, i in weights
            ),
            "One of the two factors is missing.": lambda weights, rank: sum(
                4 * rank * i for _, i in weights
            ),
        },
    ),
)


def _pairs(rng):
    cases = []
    for seeds in (3, 4, 6):
        one = [rng.uniform(1.5, 2.5) for _ in range(seeds)]
        other = [loss - rng.uniform(-0.05, 0.3) for loss in one]
        gains = [a - b for a, b in zip(one, other, strict=True)]
        where = f"{seeds} seeds"
        expected = (fmean(gains), stdev(gains) / sqrt(seeds))
        cases.append(Case((one, other), expected, where))
    return cases


check_paired_mean = Exercise(
    "Write f(before, after), which returns two numbers: the mean fall of the loss over seeds, and "
    "the standard error of that mean, from the differences seed by seed.",
    (
        "First make the list of differences, one for each seed. Then forget the two lists.",
        "Standard error: the standard deviation with n - 1, divided by the square root of n.",
    ),
    by_cases(
        _pairs,
        {
            "The sign: a loss that falls is a gain above 0.": lambda one, other: (
                fmean(other) - fmean(one),
                stdev(a - b for a, b in zip(one, other, strict=True)) / sqrt(len(one)),
            ),
            "The mean is right; the spread of one seed is not the error of the mean.": (
                lambda one, other: (
                    fmean(one) - fmean(other),
                    stdev(a - b for a, b in zip(one, other, strict=True)),
                )
            ),
            "The mean is right; the deviation is divided by n, not by n - 1 (NumPy: ddof=1).": (
                lambda one, other: (
                    fmean(one) - fmean(other),
                    pstdev(a - b for a, b in zip(one, other, strict=True)) / sqrt(len(one)),
                )
            ),
            "The mean is right; the error ignores that seeds come in pairs.": lambda one, other: (
                fmean(one) - fmean(other),
                sqrt((stdev(one) ** 2 + stdev(other) ** 2) / len(one)),
            ),
        },
    ),
)


def _factors(rng):
    cases = []
    for clients, rank in ((2, 1), (3, 2), (5, 4)):
        draw = torch.Generator().manual_seed(rng.randrange(10**6))
        outputs, inputs = rng.randint(3, 6), rng.randint(3, 6)
        a, b = (
            [torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(clients)]
            for shape in ((rank, inputs), (outputs, rank))
        )
        joined = torch.stack(b).mean(0) @ torch.stack(a).mean(0)
        exact = torch.einsum("cor,cri->oi", torch.stack(b), torch.stack(a)) / clients
        where = f"{clients} clients, r={rank}, a weight of {outputs} x {inputs}"
        cases.append(Case((a, b), exact - joined, where))
    return cases


check_factor_gap = Exercise(
    "Write f(a, b) for clients of equal size: the mean of the clients' changes B A, minus the "
    "change that comes out when FedAvg joins all A and all B apart.",
    (
        "Two tensors of the weight's shape: a mean of products, and a product of means.",
        "Client k changes the weight by b[k] @ a[k]. FedAvg changes it by mean(b) @ mean(a).",
    ),
    by_cases(
        _factors,
        {
            "The other way round: mean of products first.": lambda a, b: (
                sum(b) @ sum(a) / len(a) ** 2
                - sum(y @ x for x, y in zip(a, b, strict=True)) / len(a)
            ),
            "That is what FedAvg gets, not how far it is off.": lambda a, b: (
                sum(b) @ sum(a) / len(a) ** 2
            ),
            "That is the mean of the changes, not how far FedAvg is off it.": lambda a, b: (
                sum(y @ x for x, y in zip(a, b, strict=True)) / len(a)
            ),
        },
    ),
)
