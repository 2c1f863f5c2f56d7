"""Every strategy, and the choice of one."""

from collections.abc import Sequence
from difflib import get_close_matches

from workbench.dims import Stage, check_count
from workbench.geometry import Geometry
from workbench.strategies.base import Strategy
from workbench.strategies.dsp import DSP
from workbench.strategies.megatron import MegatronSP, MegatronTP
from workbench.strategies.ring import Ring
from workbench.strategies.ulysses import Ulysses

#: Every strategy, in teaching order. Adding one = one file and one line here.
STRATEGIES: dict[str, type[Strategy]] = {
    "single": Strategy,
    "megatron-tp": MegatronTP,
    "megatron-sp": MegatronSP,
    "ulysses": Ulysses,
    "ring": Ring,
    "dsp": DSP,
}


def select(strategy: str | type[Strategy], geometry: Geometry, p: int, **options) -> type[Strategy]:
    """Find a strategy and make sure that it can run ``geometry`` on ``p`` ranks.

    Parameters
    ----------
    strategy : str or class
        A key of `STRATEGIES`, or a subclass of `Strategy`.
    geometry : Geometry
        The model's dims, stages, heads and widths.
    p : int
        Ranks.
    **options
        Values of the strategy's own ``options``.

    Raises
    ------
    ValueError
        Unknown name, option or value; or the strategy can't run this, with the numbers, the
        rule, and the strategies that would run.
    """
    check_count("p (the number of ranks)", p)
    cls = by_name(strategy).with_options(**options)
    try:
        cls.check(geometry, p)
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
    if isinstance(strategy, str) and strategy in STRATEGIES:
        return STRATEGIES[strategy]
    close = get_close_matches(str(strategy), STRATEGIES, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ValueError(
        f"unknown strategy {strategy!r}; {hint}Known: {', '.join(STRATEGIES)}, or a subclass of "
        "workbench.strategies.Strategy"
    )


def choose_shard(
    cls: type[Strategy],
    geometry: Geometry,
    p: int,
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
    if not cls.cuts_sequence or p == 1:
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


__all__ = ["DSP", "STRATEGIES", "MegatronSP", "MegatronTP", "Ring", "Strategy", "Ulysses"]
