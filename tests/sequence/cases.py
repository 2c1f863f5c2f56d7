"""The cases that the tests of this folder go through, and running many of them in one launch."""

import collections
import itertools

from small_spec import spec
from witness import Witness

import workbench as wb
from workbench.outcome import compare
from workbench.rank import rank_step
from workbench.step import closed_form_bytes
from workbench.strategies import STRATEGIES, by_name, choose_shard, strategies_that_run

SPECS = [
    spec("tokens=7", ("tokens",), layers=2, heads=12, d_model=24),
    spec("tokens=2", ("tokens",), batch=3),
    spec("time=4 space=8", ("space", "time"), layers=3, heads=12, d_model=24, batch=2),
    spec("time=3 space=5", ("space", "time"), layers=2, batch=2, mlp_per="layer"),
    spec("time=1 space=6", ("space", "time"), layers=2, heads=4),
    spec("time=2 space=3", ("time", "space"), layers=2, heads=12, d_model=12),
    spec("time=4 space=6", (("time", "space"),), heads=4),
    spec("time=5 space=3", (("space", "time"), "time"), heads=4),
    spec("a=3 b=4 c=5", ("a", "b", "c"), layers=2, heads=4, batch=2),
    spec("a=2 b=3 c=4", (("b", "c"), "a"), layers=2, heads=12, d_model=12),
    spec("a=2 b=1 c=5", (("c", "a"), ("b", "c")), heads=4, mlp_per="layer"),
    spec("a=3 b=2 c=4", ("a", ("a", "b", "c"), "c"), heads=12, d_model=12),
]


def combinations(p, specs=SPECS, every_shard=False):
    """All strategies that run on ``p`` ranks, each with the best or with every first cut dim."""
    for model in specs:
        for name in ["single", *strategies_that_run(model, p)]:
            cuts = every_shard and STRATEGIES[name].cuts_sequence and p > 1
            for shard in model.dims if cuts else [None]:
                yield model, name, shard


def run_all(cases, p, dtype):
    """Run (spec, strategy, shard) cases one after another in a single launch."""
    prepared = [
        (model, by_name(name), choose_shard(by_name(name), model, p, model.branches, shard))
        for model, name, shard in cases
    ]

    def on_rank(rank, comm):
        results = []
        for model, cls, shard in prepared:
            with Witness(comm.size) as witness:
                results.append(rank_step(comm, model, cls, dtype, 0, shard))
            results[-1]["log"] = list(comm.log)
            assert_counted(witness, comm.log)
        return results

    ranks = wb.run_local(on_rank, p)
    steps = []
    for i, (model, cls, shard) in enumerate(prepared):
        options = {"dtype": dtype, "seed": 0, "shard": shard}
        steps.append(compare([results[i] for results in ranks], model, cls, options, 0.0))
    return steps


def assert_counted(witness, log):
    """Assert that the log has, by phase and kind, the bytes that went through the process group."""
    logged = collections.Counter()
    for record in log:
        # On gloo a reduce-scatter is an all-to-all and a local sum.
        kind = "all_to_all" if record.kind == "reduce_scatter" else record.kind
        logged[record.phase, kind] += record.sent_bytes
    assert witness.calls == logged, (witness.calls, logged)


def closed_forms(model, name, p, **options):
    """Predicted bytes of each phase."""
    return [
        closed_form_bytes(model, name, p=p, phase=phase, **options)
        for phase in ("forward", "backward", "gradients")
    ]


def counted(step):
    """Counted bytes of each phase."""
    return [step.forward_bytes, step.backward_bytes, step.gradient_bytes]


GRID = list(itertools.product([1, 2, 3, 4], ["float64", "float32"]))
