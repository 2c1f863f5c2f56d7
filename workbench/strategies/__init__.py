"""Every strategy, and the choice of one."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from math import prod

from workbench.dims import Stage, check_count
from workbench.geometry import Geometry
from workbench.mesh import DATA, check_mesh
from workbench.strategies.base import Ranks, Strategy
from workbench.strategies.dsp import DSP
from workbench.strategies.dsp_mesh import DSPxDSP, DSPxUlysses
from workbench.strategies.megatron import MegatronSP, MegatronTP
from workbench.strategies.ring import Ring
from workbench.strategies.ulysses import Ulysses
from workbench.strategies.usp import USP

#: Every strategy, in teaching order. Adding one = one file and one line here.
STRATEGIES: dict[str, type[Strategy]] = {
    "single": Strategy,
    "megatron-tp": MegatronTP,
    "megatron-sp": MegatronSP,
    "ulysses": Ulysses,
    "ring": Ring,
    "dsp": DSP,
}


#: Strategies along two axes of a mesh; any other can be combined with an axis ``"data"``.
MESHED: dict[str, type[Strategy]] = {
    "usp": USP,
    "dsp-ulysses": DSPxUlysses,
    "dsp-dsp": DSPxDSP,
}


def mesh_of(
    cls: type[Strategy], p: int, mesh: Mapping[str, int] | None
) -> Mapping[str, int] | None:
    """The mesh as given; one rank needs none, whatever axes the strategy has."""
    return dict.fromkeys(cls.axes, 1) if p == 1 and cls.axes and not mesh else mesh


def ranks_of(cls: type[Strategy], p: int, mesh: Mapping[str, int] | None) -> tuple[Ranks, int]:
    """The ranks that the strategy itself gets, and those that the samples are cut over.

    Raises
    ------
    ValueError
        If the mesh does not have the axes that the strategy needs, or not ``p`` ranks.
    """
    check_count("p (the number of ranks)", p)
    own = check_mesh(mesh_of(cls, p, mesh) or {cls.name: p}, p)
    data = own.pop(DATA, 1)
    if cls.axes:
        if set(own) != set(cls.axes):
            example = dict.fromkeys(cls.axes, 2)
            raise ValueError(
                f"{cls.name} needs a mesh with the axes {', '.join(cls.axes)}, in any order, "
                f"and may have {DATA!r} besides, such as mesh={example}; got mesh={mesh}"
            )
        return own, data
    if len(own) > 1:
        raise ValueError(
            f"{cls.name} runs along one axis, and may have {DATA!r} besides; got mesh={mesh}. "
            f"Strategies of two axes: {', '.join(MESHED)}"
        )
    return prod(own.values()), data


def select(
    strategy: str | type[Strategy],
    geometry: Geometry,
    p: int,
    mesh: Mapping[str, int] | None = None,
    **options,
) -> type[Strategy]:
    """Find a strategy and make sure that it can run ``geometry`` on ``p`` ranks.

    Parameters
    ----------
    strategy : str or class
        A key of `STRATEGIES` or `MESHED`, or a subclass of `Strategy`.
    geometry : Geometry
        The model's dims, stages, heads and widths.
    p : int
        Ranks.
    mesh : mapping of str to int, optional
        Ranks along each axis, the outermost first.
    **options
        Values of the strategy's own ``options``.

    Raises
    ------
    ValueError
        Unknown name, option or value; or the strategy can't run this, with the numbers, the
        rule, and the strategies that would run.
    """
    cls = by_name(strategy).with_options(**options)
    ranks, _ = ranks_of(cls, p, mesh)
    try:
        cls.check(geometry, ranks)
    except ValueError as error:
        would = strategies_that_run(geometry, p)
        raise ValueError(f"{error}. Strategies that would run: {', '.join(would)}") from None
    return cls


def strategies_that_run(geometry: Geometry, p: int) -> list[str]:
    """Names of the parallel strategies that can run ``geometry`` on ``p`` ranks."""
    parallel = (name for name, cls in STRATEGIES.items() if cls is not Strategy)
    return [name for name in parallel if _runs(STRATEGIES[name], geometry, p)]


def by_name(strategy: str | type[Strategy]) -> type[Strategy]:
    """The class of a strategy that is given by name, or as a class already."""
    if isinstance(strategy, type) and issubclass(strategy, Strategy):
        return strategy
    known = STRATEGIES | MESHED
    if isinstance(strategy, str) and strategy in known:
        return known[strategy]
    close = get_close_matches(str(strategy), known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ValueError(
        f"unknown strategy {strategy!r}; {hint}Known: {', '.join(known)}, or a subclass of "
        "workbench.strategies.Strategy"
    )


def choose_shard(
    cls: type[Strategy],
    geometry: Geometry,
    p: Ranks,
    branches: Sequence[Stage | None],
    shard: str | None,
) -> str | None:
    """The dim to cut first: ``shard`` if given, else the one that costs the fewest bytes.

    Raises
    ------
    ValueError
        If ``shard`` is no dim of the model.
    """
    if shard is not None and shard not in geometry.dims:
        raise ValueError(f"cannot cut {shard!r}: the model has the dims {list(geometry.dims)}")
    if not cls.cuts_sequence or (p == 1 and not cls.axes):
        return None
    if shard is not None:
        return shard

    def cost(dim):
        both = (geometry, p, dim, branches)
        return cls.forward_elements(*both) + cls.backward_elements(*both)

    return min(geometry.dims, key=cost)  # the first of equals


def _runs(cls: type[Strategy], geometry: Geometry, p: int) -> bool:
    try:
        cls.check(geometry, p)
    except ValueError:
        return False
    return True


__all__ = [
    "DSP", "MESHED", "STRATEGIES", "USP", "DSPxDSP", "DSPxUlysses", "MegatronSP", "MegatronTP",
    "Ring", "Strategy", "Ulysses",
]  # fmt: skip
