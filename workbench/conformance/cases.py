"""What a strategy is tried on: small models that are awkward in one way each."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
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
    "smaller than p": _spec({"time": 2, "space": 3}, "time", "space", batch=3, num_layers=3),
    "one dim": _spec({"tokens": 7}, "tokens", num_layers=2),
    "all dims jointly": _spec({"time": 4, "space": 6}, ("time", "space")),
    "three dims": _spec({"a": 3, "b": 4, "c": 5}, "a", "b", "c", mlp_per="layer", num_layers=2),
    "a dim in both stages": _spec({"a": 2, "b": 3, "c": 4}, ("c", "a"), ("b", "c")),
    "one head": _spec({"time": 4, "space": 5}, "space", "time", heads=1),
    "causal in time": _spec({"time": 7, "space": 4}, "space", Stage("time", causal=True)),
    "causal in two dims": _spec({"a": 2, "b": 3, "c": 4}, Stage(("b", "a"), causal=True), "c"),
    "a window": _spec({"tokens": 9}, Stage("tokens", causal=True, window=3)),
    "a window both ways": _spec({"a": 8, "b": 3}, Stage("a", window=2), "b"),
    "grouped queries": _spec({"time": 4, "space": 6}, "space", "time", num_kv_heads=2),
    "larger groups": _spec({"time": 4, "space": 6}, "space", "time", num_kv_heads=6),
    "samples of two lengths": _spec(
        {"time": 4, "space": 6}, "space", "time", batch=2, positions="learned",
        valid={"time": (4, 3), "space": (2, 6)},
    ),
    "a text": _spec({"time": 4, "space": 6}, "space", "time", context_length=4),
    "a text, cut": _spec({"time": 4, "space": 6}, "time", context_length=5, context="sharded"),
    "two frames, rotary": _spec({"time": 2, "space": 6}, "space", "time", positions="rope"),
}  # fmt: skip
#: Beside float64: dtype -> the models that are run in it, too.
ALSO = dict.fromkeys(("float32", "bfloat16"), ("two dims", "uneven, a batch"))
#: The models that are also run with checkpoints: what a strategy remembers or logs may be off then.
AGAIN = ("two dims",)


@dataclass(frozen=True)
class Case:
    """One training step that the suite runs."""

    name: str
    cls: type[Strategy]
    p: int
    shard: str | None = None
    dtype: str = "float64"
    axes: tuple[tuple[str, int], ...] = ()
    checkpoint: str = "none"

    @property
    def mesh(self) -> dict[str, int] | None:
        """Ranks along each axis, if the strategy has several."""
        return dict(self.axes) or None

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
        again = ", each block computed again in the backward" if self.checkpoint == "block" else ""
        ranks = ranks_in_words(self.p, self.axes)
        return f"{self.name} ({sizes}), {ranks}, {self.dtype}{cut}{again}"


def ranks_in_words(p: int, axes: tuple[tuple[str, int], ...]) -> str:
    """Such as ``"p=4"`` or ``"p=4 as ulysses 2 x ring 2"``."""
    return f"p={p}" + (" as " if axes else "") + " x ".join(f"{name} {n}" for name, n in axes)


class Refusal(NamedTuple):
    """A model that the strategy's own ``check`` won't run, and what it raised."""

    name: str
    p: int
    error: Exception
    axes: tuple[tuple[str, int], ...] = ()

    @property
    def case(self) -> str:
        """The model and the ranks."""
        return f"{self.name}, {ranks_in_words(self.p, self.axes)}"


def cases_of(
    cls: type[Strategy], counts: Sequence[int], models: Sequence[str] = tuple(SPECS)
) -> tuple[list[Case], list[Refusal]]:
    """All steps that ``cls`` accepts on these numbers of ranks, and what it refuses."""
    cases, refusals = [], []
    least = min(n for n in counts if n > 1)
    for p, name in product(counts, models):
        spec = SPECS[name]
        for axes in meshes_of(cls, p):
            try:
                cls.check(spec, dict(axes) or p)
            except Exception as error:  # also the wrong kind: the report says so
                refusals.append(Refusal(name, p, error, axes))
                continue
            shards = _shards(cls, spec, p)
            cases += [Case(name, cls, p, shard, axes=axes) for shard in shards]
            if p == least:
                dtypes = [dtype for dtype, names in ALSO.items() if name in names]
                cases += [Case(name, cls, p, shards[0], dtype, axes) for dtype in dtypes]
                if name in AGAIN:
                    cases.append(Case(name, cls, p, shards[0], "float64", axes, "block"))
    return cases, refusals


def meshes_of(cls: type[Strategy], p: int) -> list[tuple[tuple[str, int], ...]]:
    """How ``p`` ranks are arranged: with several axes, all ways that use most of them.

    Examples
    --------
    >>> from workbench.strategies import MESHED
    >>> [dict(axes) for axes in meshes_of(MESHED["usp"], 2)]
    [{'ulysses': 1, 'ring': 2}, {'ulysses': 2, 'ring': 1}]
    >>> meshes_of(MESHED["usp"], 4)
    [(('ulysses', 2), ('ring', 2))]
    """
    ways = product(range(1, p + 1), repeat=len(cls.axes))
    ways = [sizes for sizes in ways if prod(sizes) == p] if cls.axes else [()]
    fewest = min(sizes.count(1) for sizes in ways)
    return [tuple(zip(cls.axes, sizes, strict=True)) for sizes in ways if sizes.count(1) == fewest]


def _shards(cls: type[Strategy], spec: TransformerSpec, p: int) -> list[str | None]:
    """The dims to cut first: each on 3 ranks, which divide few sizes, else the first or last."""
    if not cls.cuts_sequence or p == 1:
        return [None]
    dims = list(spec.dims)
    return dims if p == 3 else dims[:1] if p % 4 else dims[-1:]
