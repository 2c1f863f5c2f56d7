"""The models that the tests of this folder draw: one to three dims, sizes that don't divide."""

from small_spec import spec

from workbench.strategies import STRATEGIES, strategies_that_run

SPECS = [
    spec("tokens=7", ("tokens",), layers=2, heads=12, d_model=24),
    spec("time=4 space=8", ("space", "time"), layers=3, heads=12, d_model=24, batch=2),
    spec("time=1 space=6", ("space", "time"), layers=2, heads=12, mlp_per="layer", d_model=12),
    spec("time=4 space=6", (("time", "space"),), heads=4),
    spec("a=3 b=4 c=5", ("a", "b", "c"), layers=2, heads=12, d_model=12),
    spec("a=2 b=1 c=5", (("c", "a"), ("b", "c")), heads=4),
    spec("a=3 b=2 c=4", ("a", ("a", "b", "c"), "c"), heads=12, d_model=12),
]
FEW = [SPECS[0], SPECS[1], SPECS[4]]


def combinations(p, specs):
    """All strategies that run on ``p`` ranks with every choice of the first cut dim."""
    for model in specs:
        for name in ["single", *strategies_that_run(model, p)]:
            shards = [None, *model.dims] if STRATEGIES[name].cuts_sequence and p > 1 else [None]
            for shard in shards:
                yield model, name, shard


def sizes(model):
    """Name a model by its sizes."""
    return "x".join(map(str, model.dims.values()))
