"""Everything that a planner tries: strategies, meshes, the order of their axes and of tokens."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import NamedTuple

from workbench.mesh import DATA
from workbench.strategies import MESHED, STRATEGIES
from workbench.transformer import TransformerSpec

#: Planning that takes longer shows a bar [s].
_PATIENCE_S = 2.0


class Candidate(NamedTuple):
    """A strategy on a mesh; ``None`` is one axis of all ranks."""

    strategy: str
    mesh: Mapping[str, int] | None
    options: Mapping[str, str]


def candidates(spec: TransformerSpec, p: int) -> Iterator[Candidate]:
    """Yield all that may be tried on ``p`` ranks, whether it runs or not.

    Each strategy on all ranks; beside a data axis, which is outermost, so that what sends most is
    inside a node; and the strategies of two axes on every mesh of both orders.

    Examples
    --------
    >>> from workbench.transformer import PRESETS
    >>> found = list(candidates(PRESETS["toy-video"], 4))
    >>> [c.strategy for c in found if c.mesh is None]
    ['megatron-tp', 'megatron-sp', 'ulysses', 'ring', 'dsp']
    >>> [dict(c.mesh) for c in found if c.strategy == "usp"]
    [{'ulysses': 2, 'ring': 2}, {'ring': 2, 'ulysses': 2}]
    """
    if p == 1:
        yield Candidate("single", None, {})
        return
    for data in (d for d in range(1, p + 1) if p % d == 0 and spec.batch % d == 0):
        outer, ranks = ({DATA: data} if data > 1 else {}), p // data
        if ranks == 1:
            yield Candidate("single", outer, {})
            continue
        for name in (name for name in STRATEGIES if name != "single"):
            yield Candidate(name, {**outer, name: ranks} if outer else None, _options(spec, name))
        pairs = [(a, ranks // a) for a in range(2, ranks) if ranks % a == 0]
        for name, (a, b) in product(MESHED, pairs):
            first, second = MESHED[name].axes
            yield Candidate(name, {**outer, first: a, second: b}, _options(spec, name))
            yield Candidate(name, {**outer, second: b, first: a}, _options(spec, name))


def _options(spec: TransformerSpec, name: str) -> dict[str, str]:
    """The one choice that always pays: under a causal mask a ring's parts are dealt in a zigzag."""
    causal = any(stage.causal for stage in spec.stages)
    return {"order": "zigzag"} if causal and name in ("ring", "usp") else {}


def with_bar(known: list[Candidate]) -> Iterable[Candidate]:
    """Show a bar while they are gone through, once that takes long."""
    try:
        from tqdm.auto import tqdm
    except ModuleNotFoundError:  # it comes with the notebooks; nothing depends on it
        return known
    return tqdm(known, desc="planning", delay=_PATIENCE_S, leave=False)
