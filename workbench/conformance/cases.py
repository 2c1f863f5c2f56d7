"""What a strategy is tried on: small models that are awkward in one way each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from workbench.dims import Stage
from workbench.strategies import Strategy
from workbench.transformer import TransformerSpec


def _spec(dims: dict[str, int], *stages, heads: int = 12, **more):
    usual = {"d_model": 24, "mlp_ratio": 2, "num_layers": 1}
    return TransformerSpec(dims=dims, stages=stages, num_heads=heads, **{**usual, **more})


#: Models by what is special about them; the first is the plainest. One line more is one more
#: thing that every strategy must compute or refuse.
SPECS: dict[str, TransformerSpec] = {
    "two dims": _spec({"time": 4, "space": 12}, "space", "time", num_layers=2),
    "uneven, a batch": _spec(
        {"time": 3, "space": 5}, "space", "time", batch=2, mlp_per="layer", num_layers=2
    ),
    "smaller than p": _spec({"time": 2, "space": 3}, "time", "space"),
    "one dim": _spec({"tokens": 7}, "tokens", num_layers=2),
    "all dims jointly": _spec({"time": 4, "space": 6}, ("time", "space")),
    "three dims": _spec({"a": 3, "b": 4, "c": 5}, "a", "b", "c", mlp_per="layer", num_layers=2),
    "a dim in both stages": _spec({"a": 2, "b": 3, "c": 4}, ("c", "a"), ("b", "c")),
    "one head": _spec({"time": 4, "space": 5}, "space", "time", heads=1),
    "causal in time": _spec({"time": 7, "space": 4}, "space", Stage("time", causal=True)),
    "a window": _spec({"tokens": 9}, Stage("tokens", causal=True, window=3)),
    "grouped queries": _spec({"time": 4, "space": 6}, "space", "time", num_kv_heads=4),
}
#: Beside float64: dtype -> the models that are run in it, too.
ALSO = dict.fromkeys(("float32", "bfloat16"), ("two dims", "uneven, a batch"))


@dataclass(frozen=True)
class Case:
    """One training step that the suite runs."""

    name: str
    cls: type[Strategy]
    p: int
    shard: str | None = None
    dtype: str = "float64"

    @property
    def spec(self) -> TransformerSpec:
        """The model."""
        return SPECS[self.name]

    @property
    def uneven(self) -> bool:
        """Tell whether p leaves a rest of some dim, so that there may be padding."""
        return any(size % self.p for size in self.spec.dims.values())

    def __str__(self) -> str:
        sizes = " ".join(f"{name}={size}" for name, size in self.spec.dims.items())
        cut = f", {self.shard} cut first" if self.shard else ""
        return f"{self.name} ({sizes}), p={self.p}, {self.dtype}{cut}"


class Refusal(NamedTuple):
    """A model that the strategy's own ``check`` won't run, and what it raised."""

    name: str
    p: int
    error: Exception


def cases_of(
    cls: type[Strategy], counts: Sequence[int], models: Sequence[str] = tuple(SPECS)
) -> tuple[list[Case], list[Refusal]]:
    """All steps that ``cls`` accepts on these numbers of ranks, and what it refuses."""
    cases, refusals = [], []
    for p in counts:
        for name, spec in ((name, SPECS[name]) for name in models):
            try:
                cls.check(spec, p)
            except Exception as error:  # also the wrong kind: the report says so
                refusals.append(Refusal(name, p, error))
                continue
            cases += [Case(name, cls, p, shard) for shard in _shards(cls, spec, p)]
            if p == min(n for n in counts if n > 1):
                first = _shards(cls, spec, p)[0]
                dtypes = [dtype for dtype, names in ALSO.items() if name in names]
                cases += [Case(name, cls, p, first, dtype) for dtype in dtypes]
    return cases, refusals


def _shards(cls: type[Strategy], spec: TransformerSpec, p: int) -> list[str | None]:
    """The dims to cut first: each on 3 ranks, which divide few sizes, else the first or last."""
    if not cls.cuts_sequence or p == 1:
        return [None]
    dims = list(spec.dims)
    return dims if p == 3 else dims[:1] if p % 4 else dims[-1:]
