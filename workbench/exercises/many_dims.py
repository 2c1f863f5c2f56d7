"""Exercises on what a multi-dimensional transformer is and costs, and what their cases share.

Each check computes its targets with the tested library, on several shapes drawn from a fixed seed.
"""

import random
from math import prod

import torch

from workbench.exercises.checking import Case, Exercise, by_cases
from workbench.strategies.attention import attention_flops, fold
from workbench.transformer import TransformerSpec

#: Names and sizes of dims that cases are drawn from.
NAMES = ("time", "space", "depth")


def random_spec(rng: random.Random, p: int = 1, **changes) -> TransformerSpec:
    """A video model whose dims and heads p divides."""
    given = {
        "dims": {"time": p * rng.randint(1, 5), "space": p * rng.randint(6, 9)},
        "stages": ("space", "time"),
        "d_model": 12 * rng.randint(2, 5),
        "num_heads": 12,
        "num_layers": rng.randint(2, 5),
        "batch": rng.randint(1, 3),
    }
    return TransformerSpec(**(given | changes))


def words(dims, **more) -> str:
    """Name a case: ``time=4, space=8, p=2``."""
    return ", ".join(f"{name}={value}" for name, value in {**dims, **more}.items())


def folded(dims: dict[str, int], stage: tuple[str, ...], batch: int, width: int = 1):
    """Shape [sequences, heads, length, channel] that the attention of a stage works on."""
    q = torch.empty((batch, *dims.values(), 1, width), device="meta")
    return tuple(fold(q, [1 + list(dims).index(dim) for dim in stage]).shape)


def _sequences(rng):
    cases = []
    for count in (1, 2, 3, 2, 3):
        dims = {name: rng.randint(2, 9) for name in NAMES[:count]}
        stage = tuple(rng.sample(list(dims), rng.randint(1, count)))
        batch = rng.randint(2, 4)
        shape = folded(dims, stage, batch)
        where = words(dims, stage=stage, batch=batch)
        cases.append(Case((dims, stage, batch), (shape[0], shape[2]), where))
    return cases


check_sequences = Exercise(
    "Write f(dims, stage, batch), which returns how many separate sequences a stage's attention "
    "sees, and the length of each, as a pair.",
    (
        "The dims that are not in the stage are treated like more samples of the batch.",
        "The two numbers of the pair, multiplied, are all tokens of the batch.",
    ),
    by_cases(
        _sequences,
        {
            "You have the two numbers the other way round.": lambda dims, stage, batch: (
                prod(dims[d] for d in stage),
                batch * prod(n for d, n in dims.items() if d not in stage),
            ),
            "You left the batch out.": lambda dims, stage, batch: (
                prod(n for d, n in dims.items() if d not in stage),
                prod(dims[d] for d in stage),
            ),
        },
    ),
)


def _activations(rng):
    cases = []
    for dtype, itemsize in (("float32", 4), ("bfloat16", 2), ("float32", 4), ("float64", 8)):
        spec = random_spec(rng)
        where = words(spec.dims, d_model=spec.d_model, batch=spec.batch, itemsize=itemsize)
        given = (dict(spec.dims), spec.d_model, spec.batch, itemsize)
        cases.append(Case(given, spec.activation_bytes(dtype), where))
    return cases


check_activation_bytes = Exercise(
    "Write f(dims, d_model, batch, itemsize), which returns M: the bytes of the whole activation "
    "[B, T, S, M].",
    (
        "Count the numbers in [B, T, S, M] first, then ask how many bytes one of them has.",
        "Every token is a vector of d_model numbers; every number has itemsize bytes.",
    ),
    by_cases(
        _activations,
        {
            "You counted numbers, not bytes.": lambda dims, d_model, batch, itemsize: (
                prod(dims.values()) * d_model * batch
            ),
            "You counted tokens, not the numbers in them.": lambda dims, d_model, batch, itemsize: (
                prod(dims.values()) * batch * itemsize
            ),
            "You added the dims up; tokens are a grid.": lambda dims, d_model, batch, itemsize: (
                sum(dims.values()) * d_model * batch * itemsize
            ),
        },
    ),
)


def _attention_flops(rng):
    cases = []
    for stages in (
        (("time", "space"),),
        (("space",), ("time",)),
        (("time",), ("space",), ("depth",)),
        (("space", "depth"), ("time",)),
        (("time", "space", "depth"),),
    ):
        dims = {n: rng.randint(3, 20) for n in NAMES if any(n in stage for stage in stages)}
        width = rng.randint(2, 9) * 8
        shapes = [folded(dims, stage, 1, width) for stage in stages]
        flops = sum(attention_flops(shape, shape) for shape in shapes)
        where = words(dims, stages=stages, d_model=width)
        cases.append(Case((dims, stages, width), flops, where))
    return cases


def _tokens_squared(dims, stages, d_model):
    return 4 * len(stages) * prod(dims.values()) ** 2 * d_model


check_attention_flops = Exercise(
    "Write f(dims, stages, d_model), which returns the flops of one layer's attention forward: "
    "the two products, queries with keys and weights with values, for one sample.",
    (
        "A product of [n, c] and [c, m] takes 2 n c m flops. How many keys does one query see?",
        "One stage: every token of the sample is a query; its keys are the tokens along the "
        "stage's dims. There are two such products. Add the stages up.",
    ),
    by_cases(
        _attention_flops,
        {
            "As if every stage attended along all tokens.": _tokens_squared,
            "You counted one of the two products.": lambda dims, stages, d_model: sum(
                2 * prod(dims.values()) * prod(dims[d] for d in s) * d_model for s in stages
            ),
        },
    ),
)
