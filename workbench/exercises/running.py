"""Exercises on running strategies: parts and wholes, who sends to whom, a strategy of your own."""

import random

import torch

from workbench.collectives import SENT_PER_INPUT_BYTE, Collective, bytes_to_peers, sent_bytes
from workbench.dims import Dims
from workbench.exercises.checking import Case, Exercise, Verdict, by_cases
from workbench.exercises.many_dims import NAMES, random_spec, words
from workbench.failure import RankError
from workbench.geometry import Geometry
from workbench.layout import Layout, take_shard
from workbench.outcome import RealStep
from workbench.step import closed_form_bytes, run_step
from workbench.strategies import Strategy, strategies_that_run
from workbench.transformer import TransformerSpec


def _parts(rng):
    cases = []
    for p, size in ((2, 4), (3, 6), (3, 5), (4, 5), (4, 9)):
        position = rng.randint(1, 2)
        shape = {"batch": 2, "time": 3, "space": 4, "model": 5}
        dim = tuple(shape)[position]
        shape[dim] = size
        x = torch.rand(tuple(shape.values()), generator=torch.Generator().manual_seed(size))
        layout = Layout(Dims(shape), dim)
        parts = [take_shard(x, layout, rank, p) for rank in range(p)]
        note = "there is padding" if size % p else ""
        where = f"{layout}, {dim}={size}, p={p}"
        cases.append(Case((parts, position, size), x, where, p, note))
    return cases


check_join = Exercise(
    "Write f(parts, position, size), which puts the ranks' buffers together to the whole tensor; "
    "the dim at that position was cut and has that size.",
    (
        "Concatenate along the cut dim, then compare the size of the result with the size asked.",
        "The last ranks' buffers end in padding, and all padding is at the very end.",
    ),
    by_cases(
        _parts,
        {
            "The padding is still there.": lambda parts, position, size: torch.cat(parts, position),
        },
    ),
)


def _peers(rng):
    cases = []
    for kind in SENT_PER_INPUT_BYTE:
        for p in rng.sample(range(2, 7), 2):
            size, rank = p * 4 * rng.randint(10, 99), rng.randrange(p)
            sent = sent_bytes(kind, size, p)
            record = Collective(kind, "sp", None, "float32", size, sent, "forward", 0, 0)
            where = f"{kind}, {sent} bytes sent, rank={rank}, p={p}"
            expected = bytes_to_peers(record, rank, p)
            cases.append(Case((kind, sent, rank, p), expected, where, p, f"kind={kind}"))
    return cases


check_peers = Exercise(
    "Write f(kind, sent_bytes, rank, p), which returns a list: what this rank sends to rank 0, to "
    "rank 1, and so on. An all-to-all sends to all others alike, all other kinds go round a ring.",
    (
        "The list has p entries. Nobody sends to itself. The entries add up to sent_bytes.",
        "On a ring only the next rank gets something, and rank 0 comes after the last.",
    ),
    by_cases(
        _peers,
        {
            "As if every kind were an all-to-all.": lambda kind, sent, rank, p: [
                0 if peer == rank else sent // (p - 1) for peer in range(p)
            ],
            "A rank does not send to itself.": lambda kind, sent, rank, p: [sent // p] * p,
        },
    ),
)


def _models(rng):
    cases = []
    for heads, p, joint in (
        (4, 2, False), (3, 2, False), (6, 4, False), (4, 4, True), (3, 2, True), (6, 3, False),
    ):  # fmt: skip
        dims = {name: rng.randint(2, 9) for name in NAMES[:2]}
        stages = (tuple(dims),) if joint else tuple((name,) for name in dims)
        geometry = Geometry(dims=dims, stages=stages, d_model=8 * heads, num_heads=heads)
        where = words(dims, stages=stages, num_heads=heads, p=p)
        expected = set(strategies_that_run(geometry, p))
        cases.append(Case((dims, stages, heads, p), expected, where, p))
    return cases


check_runnable = Exercise(
    "Write f(dims, stages, num_heads, p), which returns the set of the parallel strategies that "
    'can run this, such as {"ring", "dsp"}.',
    (
        "Which strategies give each rank whole heads? Which one needs a dim to switch to?",
        "Three strategies ask for num_heads % p == 0, one looks at the stages, one never refuses.",
    ),
    by_cases(
        _models,
        {
            "Think of the heads.": lambda dims, stages, heads, p: {
                "megatron-tp", "megatron-sp", "ulysses", "ring",
                *(() if any(len(s) == len(dims) for s in stages) else ("dsp",)),
            },
            "Think of the stages that attend along all dims.": lambda dims, stages, heads, p: {
                "ring", "dsp", *(() if heads % p else ("megatron-tp", "megatron-sp", "ulysses")),
            },
        },
    ),
)  # fmt: skip


def _own_strategy(answer) -> Verdict:
    """Say whether a learner's strategy gathers K and V and is exact, on two small models."""
    if not (isinstance(answer, type) and issubclass(answer, Strategy)):
        text = f"You gave {answer!r}; a subclass of workbench.strategies.Strategy is asked for."
        return Verdict(False, text)
    for spec, p in _small_models():
        try:
            step = run_step(spec, answer, p=p, shard="time", timeout_s=60)
            complaint = _inexact(step) or _not_gathered(step, spec)
        except (RankError, ValueError, TypeError) as error:
            complaint = str(error).strip().splitlines()[-1]
        if complaint:
            return Verdict(False, f"Ran {answer.__name__} on {words(spec.dims, p=p)}: {complaint}.")
    return Verdict(
        True,
        f"Right. Ran {answer.__name__} on {' and '.join(str(p) for _, p in _small_models())} "
        "ranks: output and gradients are one device's, K and V are gathered forward and their "
        "gradients summed and scattered backward, with no more bytes than that takes.",
    )


def _inexact(step: RealStep) -> str:
    if not step.max_error < 1e-5:
        return f"the output differs from one device's by {step.max_error:.1e}"
    if not step.grad_error < 1e-5:
        wrong = f"gradients differ by {step.grad_error:.1e}: something is wrong backward"
        return f"the output is right, but {wrong}"
    return ""


def _not_gathered(step: RealStep, spec: TransformerSpec) -> str:
    """What tells a step's log from that of gathering K and V; "" if nothing does."""
    # Forward, gathering K and V sends as much as passing them round a ring; its backward, too.
    target = closed_form_bytes(spec, "ring", p=step.p, phase="forward", shard="time")
    for phase, kind in (("forward", "all_gather"), ("backward", "reduce_scatter")):
        sent, kinds = step.bytes_of(phase), {r.kind for r in step.log if r.phase == phase}
        if sent != target:
            size = "more" if sent > target else "less"
            return f"exact, but it sends {size} {phase} than gathering K and V takes"
        if kinds != {kind}:
            return f"exact, but {phase} it sends by {', '.join(sorted(kinds))}: nothing is gathered"
    return ""


def _small_models() -> list[tuple[TransformerSpec, int]]:
    rng = random.Random(7)
    sizes = {"d_model": 24, "num_layers": 2}
    return [(random_spec(rng, p, **sizes), p) for p in (2, 3)]


check_own_strategy = Exercise(
    "Write a subclass of Strategy that keeps one dim cut and, where a stage attends along it, "
    "gathers keys and values whole on every rank. Queries stay where they are.",
    (
        "Override attend. Where layout.split is not in the stage, the parent's attend will do; "
        "else change the layout of k and v with self.comm.relayout. Look at Ulysses' file. Set "
        "cuts_sequence = True and a name.",
        "Every rank computes its own part from the same copy of K and V. What does that make of "
        "their gradients? Layout's docstring names the three values of an unsplit tensor.",
    ),
    _own_strategy,
)
