"""Exercises on averaging low-rank factors: what is missed, stacking, what a merged base costs."""

from math import prod

import torch

from workbench.exercises.checking import Case, Exercise, Verdict, by_cases


def _clients(rng, counts=((2, 1), (3, 2), (5, 4))):
    """Random factors of some clients: lists of A and of B, and their shape in words."""
    for clients, rank in counts:
        draw = torch.Generator().manual_seed(rng.randrange(10**6))
        outputs, inputs = rng.randint(5, 9), rng.randint(5, 9)
        a, b = (
            [torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(clients)]
            for shape in ((rank, inputs), (outputs, rank))
        )
        yield a, b, f"{clients} clients, r={rank}, a weight of {outputs} x {inputs}"


def _sent(a, b, rows):
    from workbench.federated.averaging import ONE
    from workbench.federated.methods import base

    return [
        base.Update(i, {ONE.a: x.numpy(), ONE.b: y.numpy()}, n, 0.0)
        for i, (x, y, n) in enumerate(zip(a, b, rows, strict=True))
    ]


def _gaps(rng):
    from workbench.federated.averaging import factor_gap

    cases = []
    for a, b, where in _clients(rng):
        cases.append(Case((a, b), factor_gap(_sent(a, b, [1] * len(a))).relative, where))
    return cases


def _products(a, b):
    exact = sum(y @ x for x, y in zip(a, b, strict=True)) / len(a)
    return exact, (sum(b) / len(b)) @ (sum(a) / len(a))


def _relative(a, b, to=0):
    both = _products(a, b)
    return float((both[0] - both[1]).norm() / both[to].norm())


check_relative_gap = Exercise(
    "Write f(a, b) for clients of equal size: the size of what FedAvg misses, divided by the size "
    "of the exact mean of B A. The size is the Frobenius norm, `tensor.norm()`.",
    (
        "Compute the exact mean and FedAvg's product first; each is one tensor.",
        "(exact - product of the means).norm() / exact.norm(), as a number.",
    ),
    by_cases(
        _gaps,
        {
            "That is the size itself, not divided by that of the exact mean.": lambda a, b: float(
                (_products(a, b)[0] - _products(a, b)[1]).norm()
            ),
            "That is divided by the size of FedAvg's product.": lambda a, b: _relative(a, b, 1),
            "That is how large FedAvg's product is, not how far it is off.": lambda a, b: float(
                _products(a, b)[1].norm() / _products(a, b)[0].norm()
            ),
        },
    ),
)


def _stacks(rng):
    from workbench.federated.averaging import ONE
    from workbench.federated.methods.factors import stacked

    cases = []
    for a, b, where in _clients(rng):
        rows = rng.sample(range(5, 200), len(a))
        left, right = stacked(_sent(a, b, rows), ONE)
        expected = torch.from_numpy(left @ right)
        cases.append(Case((a, b, rows), expected, f"{where}, rows {rows}"))
    return cases


def _stacked_grade(answer) -> Verdict | None:
    """Two factors may differ and be right: their product is what is checked, and their sizes."""
    if not callable(answer):
        return _PRODUCTS(answer)

    def multiplied(a, b, rows):
        pair = answer(a, b, rows)
        if pair is None or pair is ...:
            return None
        left, right = pair
        stack = sum(len(x) for x in a)
        if tuple(left.shape[1:]) != (stack,) or tuple(right.shape[:1]) != (stack,):
            raise ValueError(
                f"shapes {tuple(left.shape)} and {tuple(right.shape)}; the stacks have "
                f"{stack} columns and {stack} rows here"
            )
        return left @ right

    return _PRODUCTS(multiplied)


_PRODUCTS = by_cases(
    _stacks,
    {
        "The share stands in both factors, so it counts twice.": lambda a, b, rows: sum(
            (n / sum(rows)) ** 2 * y @ x for x, y, n in zip(a, b, rows, strict=True)
        ),
        "Every client counts the same there.": lambda a, b, rows: _products(a, b)[0],
        "That is a sum, not a mean: no share stands in it.": lambda a, b, rows: (
            len(a) * _products(a, b)[0]
        ),
    },
)
check_stacked_factors = Exercise(
    "Write f(a, b, rows), which returns two tensors, left and right, whose product is the mean of "
    "B A weighted by rows. left has all clients' columns side by side, right all their rows.",
    (
        "torch.cat puts tensors side by side (dim=1) or below each other (dim=0).",
        "Multiply each client's A by its share of all rows, and leave B as it is.",
    ),
    _stacked_grade,
)


def _merged(rng):
    from workbench.federated import Flora
    from workbench.federated.averaging import ONE
    from workbench.federated.options.compression import Spec

    cases = []
    for updates in (1, 3, 60, 400):
        outputs, inputs, rank = rng.choice((96, 384)), rng.choice((192, 384)), rng.choice((2, 4, 8))
        specs = {ONE.a: Spec((rank, inputs)), ONE.b: Spec((outputs, rank))}
        sent = Flora().merged(specs, updates)
        where = f"a weight of {outputs} x {inputs}, r={rank}, {updates} updates so far"
        note = "the factors are larger than the weight" if len(sent) == 1 else "factors are smaller"
        size = 4 * sum(prod(spec.shape) for spec in sent.values())
        cases.append(Case((outputs, inputs, rank, updates), size, where, note=note))
    return cases


check_merged_bytes = Exercise(
    "Write f(outputs, inputs, rank, updates): the bytes of the numbers with which a client learns "
    "what was merged into one weight so far. Each of the updates has added one product of rank "
    "`rank`. Float32; send the stacked factors or the whole change, whichever is smaller.",
    (
        "After `updates` updates the stacks have rank * updates columns and rows.",
        "4 * min(rank * updates * (outputs + inputs), outputs * inputs)",
    ),
    by_cases(
        _merged,
        {
            "Factors are sent even where the whole change is smaller.": lambda o, i, r, u: (
                4 * r * u * (o + i)
            ),
            "The whole change is sent even where factors are smaller.": lambda o, i, r, u: (
                4 * o * i
            ),
            "Those are numbers; bytes are asked for.": lambda o, i, r, u: min(
                r * u * (o + i), o * i
            ),
        },
    ),
)
