"""Exercises on training over several ranks: a part of a loss, gradients' sums, checkpoints."""

import torch

from workbench.comm import Comm
from workbench.dims import Dims
from workbench.exercises.checking import Case, Exercise, by_cases
from workbench.layout import Layout, take_shard
from workbench.strategies import STRATEGIES
from workbench.train.denoiser import first_weights
from workbench.train.task import DIGITS, TrainTask

#: Weights that cases ask for: replicated by all, or cut by Megatron.
WEIGHTS = ("norm.weight", "query.weight", "value.bias", "output.weight", "output.bias", "up.bias")


def _losses(rng):
    cases = []
    for p, size in ((2, 4), (4, 8), (2, 5), (3, 4), (4, 6)):
        sizes = {"batch": 2, "time": size, "space": 3, "pixels": 4}
        layout, generator = Layout(Dims(sizes), "time"), torch.Generator().manual_seed(size)
        said, target = torch.rand((2, *sizes.values()), generator=generator).double()
        rank, whole = p - 1, target.numel()
        parts = [take_shard(t, layout, rank, p) for t in (said, target)]
        parts[0] = parts[0] + (parts[0] == 0)  # a model makes something of padding, too
        valid = layout.valid(rank, p)
        held = slice(rank * parts[0].shape[1], None)
        loss = (said[:, held] - target[:, held]).square().sum().item() / whole
        note = "there is padding" if size % p else ""
        cases.append(
            Case((*parts, valid, whole), loss, f"time={size}, rank {rank} of {p}", p, note)
        )
    return cases


def _part(said, target, whole):
    return ((said - target).square().sum() / whole).item()


check_loss_part = Exercise(
    "Write f(said, target, valid, whole), which returns this rank's part of the loss as a number: "
    "time is dim 1, the first `valid` of its entries are no padding, and `whole` counts the "
    "numbers of the whole target. The parts of all ranks add up to the mean square.",
    (
        "A sum over what this rank holds, over a count that is the same on every rank.",
        "What a model says about padding must not count: cut it off first.",
    ),
    by_cases(
        _losses,
        {
            "Padding counts here.": lambda said, target, valid, whole: _part(said, target, whole),
            "That is the mean over this rank's numbers; means don't add up to the whole mean.": (
                lambda said, target, valid, whole: (said - target)[:, :valid].square().mean().item()
            ),
            "That is the sum: divide it.": lambda said, target, valid, whole: _part(
                said[:, :valid], target[:, :valid], 1
            ),
        },
    ),
)


def _summed(rng):
    cases = []
    for strategy in ("megatron-tp", "megatron-sp", "ulysses", "dsp"):
        cls = STRATEGIES[strategy]
        for weight in WEIGHTS:
            expected = cls.cuts_sequence and cls.cut_dim(weight) is None
            cases.append(Case((strategy, weight), expected, f"{weight} under {strategy}"))
    return cases


check_summed_gradients = Exercise(
    "Write f(strategy, weight), which says whether the gradient of that weight has to be summed "
    'over the ranks, True or False: f("dsp", "query.weight"). '
    f"Weights: {', '.join(WEIGHTS)}.",
    (
        "A rank that sees only a part of the tokens has only a part of a weight's gradient.",
        "Megatron's ranks see all tokens inside a branch, with their own heads or hidden units. "
        "In megatron-sp they see a part of them where the norm and the last bias are.",
    ),
    by_cases(
        _summed,
        {
            "Not every strategy cuts tokens.": lambda strategy, weight: (
                "megatron" not in strategy or weight in ("norm.weight", "output.bias")
            ),
            "Some weights are cut: each rank has the whole gradient of its part.": (
                lambda strategy, weight: strategy != "megatron-tp"
            ),
        },
    ),
)


def _checkpoints(rng):
    cases = []
    weights = first_weights(TrainTask(spec=DIGITS, seed=3))
    for name, before, after in (
        ("layers.0.attention.0.query.weight", 4, 2),
        ("layers.0.attention.0.output.weight", 2, 4),
        ("layers.1.mlp.0.down.weight", 4, 1),
        ("layers.1.mlp.1.up.bias", 1, 2),
        ("layers.0.mlp.0.norm.weight", 4, 2),
    ):
        old, new = (
            [
                STRATEGIES["megatron-sp"](Comm(p, rank), DIGITS, "time").shard_weights(
                    {name: weights[name]}
                )[name]
                for rank in range(p)
            ]
            for p in (before, after)
        )
        dim = STRATEGIES["megatron-sp"].cut_dim(name)
        where = f"{name}, cut along {dim}, from {before} to {after} ranks"
        cases.append(
            Case((old, dim, after), new, where, after, "" if dim is not None else "dim=None")
        )
    return cases


check_reshard = Exercise(
    "Write f(parts, dim, p), which turns the old ranks' parts of a weight into a list of p new "
    "ones. The weight is cut along dim; where dim is None, every rank has all of it.",
    (
        "A checkpoint does it in two steps: put the whole weight together, then cut it.",
        "A weight that is not cut is the same on all ranks: how many of them do you need?",
    ),
    by_cases(
        _checkpoints,
        {
            "You joined and cut along the first dim always.": lambda parts, dim, p: (
                [parts[0]] * p if dim is None else list(torch.cat(parts).chunk(p))
            ),
            "Whole weights everywhere: a cut one should be cut again.": lambda parts, dim, p: (
                [parts[0] if dim is None else torch.cat(parts, dim)] * p
            ),
        },
    ),
)
