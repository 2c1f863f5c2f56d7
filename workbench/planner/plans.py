"""Rank all strategies, meshes and checkpoints for one model on one cluster."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, product

from workbench.closed_form import CHECKPOINTS, DTYPES, FSDP, prepared
from workbench.cluster import Cluster
from workbench.cost import MODES, Cost, predict
from workbench.dims import check_count
from workbench.layout import shard_size
from workbench.mesh import DATA
from workbench.planner.candidates import Candidate, candidates, with_bar
from workbench.strategies import MESHED, STRATEGIES, Strategy, by_name
from workbench.transformer import TransformerSpec
from workbench.units import human_bytes

#: What plans can be ranked by, smallest first.
OBJECTIVES = ("seconds", "memory_bytes")
_CHECKPOINTS = ("none", "selective", "block")


@dataclass(frozen=True)
class Plan:
    """One way to run a model, and what is predicted of it.

    Attributes
    ----------
    strategy, p : str, int
        What is run on how many ranks.
    mesh : dict of str to int or None
        Ranks along each axis, the last one inside a node first; ``None``: one axis.
    checkpoint, fsdp, accumulate, options : str, bool or str, int, dict
        As of `predict`.
    fits : bool
        Whether it runs, and in the devices' memory.
    reason : str
        Why it doesn't fit, and the smallest change that would; else what it is bound by.
    seconds : float
        Of one step [s]; infinite if it can't run.
    memory_bytes : int or None
        Of a rank, with AdamW; ``None`` if it can't run.
    binds : str
        What most of the time goes to: ``"compute"``, ``"memory"`` (kernels that wait for it, and
        copies), ``"link"`` (inside a node), ``"NIC"`` or ``"overhead"``; ``""`` if it can't run.
    memory_exact : bool
        Whether ``memory_bytes`` is a closed form, to the byte of live tensors, or an estimate.
    cost : Cost or None
        All that was predicted.
    """

    strategy: str
    p: int
    mesh: Mapping[str, int] | None
    checkpoint: str
    fits: bool
    reason: str
    seconds: float = float("inf")
    memory_bytes: int | None = None
    binds: str = ""
    fsdp: bool | str = False
    accumulate: int = 1
    options: Mapping[str, str] = field(default_factory=dict)
    memory_exact: bool = False
    cost: Cost | None = field(default=None, repr=False, compare=False)

    @property
    def ranks(self) -> str:
        """The mesh in a few words, outermost axis first."""
        if self.mesh is None:
            return str(self.p)
        return " x ".join(f"{axis} {size}" for axis, size in self.mesh.items())

    def as_dict(self) -> dict:
        """The plan without its cost's details, for JSON; no time is ``None`` there."""
        names = ("strategy", "p", "mesh", "checkpoint", "fsdp", "accumulate", "options", "fits",
                 "reason",
                 "memory_bytes", "memory_exact", "binds")  # fmt: skip
        seconds = self.seconds if self.cost else None
        return {**{name: getattr(self, name) for name in names}, "seconds": seconds}


def plan(
    spec: TransformerSpec,
    cluster: Cluster,
    *,
    p: int | None = None,
    gpus: int | None = None,
    objective: str = "seconds",
    dtype: str = "bfloat16",
    mode: str = "train",
    gradient_sync: str | None = None,
    accumulate: int | Sequence[int] | None = None,
    strategies: Iterable[str | type[Strategy]] | None = None,
    checkpoints: str | Sequence[str] = _CHECKPOINTS,
    fsdp: bool | str | Sequence[bool | str] = (False, True),
    memory_bytes: int | None = None,
    meshes: bool = True,
) -> list[Plan]:
    """Rank every strategy, mesh, order of axes, checkpointing, FSDP and size of micro-batches.

    Of the strategies' own options only a ring's order is chosen; `predict` tells what others do.

    Parameters
    ----------
    spec, cluster, p, dtype, mode, gradient_sync
        As for `predict`.
    gpus : int
        Another word for ``p``; give one of the two.
    objective : {"seconds", "memory_bytes"}
        What the plans that fit are ranked by.
    strategies : iterable of str or class, optional
        Only these of the library's; by default all.
    accumulate : sequence of int, one, or None
        Into how many micro-batches a rank's samples are cut; ``None``: the fewest with which it
        fits, and as many as there are samples. In inference, where nothing adds up, one.
    checkpoints, fsdp : sequence, or one value
        What to try; in inference there is nothing to checkpoint.
    memory_bytes : int, optional
        Of each device; by default as the cluster's has it.
    meshes : bool
        Whether to try meshes of several axes, too, with data parallelism among them.

    Returns
    -------
    list of Plan
        Those that fit, the best first; then those that don't fit, with the reason.

    Raises
    ------
    ValueError
        If a word is unknown, a number can't be, or the cluster has fewer than ``p`` devices.

    Examples
    --------
    >>> from workbench.cluster import CLUSTERS
    >>> from workbench.transformer import PRESETS
    >>> plans = plan(PRESETS["stdit-xl-2"], CLUSTERS["dgx-h100"], p=3)
    >>> plans[0].strategy, plans[-1].fits
    ('dsp', False)
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}; got {objective!r}")
    for given, kind in ((spec, TransformerSpec), (cluster, Cluster)):
        if not isinstance(given, kind):
            raise ValueError(f"a {kind.__name__} is needed, not the name of one; got {given!r}")
    if (p is None) == (gpus is None):
        raise ValueError(f"give p, or gpus, which is the same; got p={p}, gpus={gpus}")
    p = gpus if p is None else p
    cluster.check_ranks(p)
    budget = cluster.device.memory_bytes if memory_bytes is None else memory_bytes
    tried = {"checkpoint": checkpoints, "fsdp": fsdp, "accumulate": accumulate}
    tried = {name: (x,) if isinstance(x, str | int) else x for name, x in tried.items()}
    cluster.summing(gradient_sync)
    _check(dtype, mode, tried, budget)
    if mode == "inference":
        tried |= {"checkpoint": ("none",), "accumulate": (1,)}
    timed = {"dtype": dtype, "mode": mode, "gradient_sync": gradient_sync}
    wanted = {*STRATEGIES, *MESHED} if strategies is None else _wanted(strategies)
    known = [c for c in candidates(spec, p) if c.strategy in wanted and (meshes or c.mesh is None)]
    of = (_of(candidate, spec, cluster, p, timed, tried, budget) for candidate in with_bar(known))
    found = _advised(list(chain.from_iterable(of)), budget, spec)
    return sorted(found, key=lambda q: (not q.fits, getattr(q, objective) or 0, q.seconds))


def _check(dtype, mode, tried, budget) -> None:
    """What no plan could have is refused once, rather than by every plan."""
    asked = [
        ("dtype", [dtype], DTYPES), ("mode", [mode], MODES),
        ("checkpoints", tried["checkpoint"], CHECKPOINTS), ("fsdp", tried["fsdp"], FSDP),
    ]  # fmt: skip
    for name, values, known in asked:
        if odd := [x for x in ([None] if values is None else values) if x not in known]:
            raise ValueError(f"{name} must be of {', '.join(map(str, known))}; got {odd[0]!r}")
    if empty := [name for name, values in tried.items() if values is not None and not len(values)]:
        raise ValueError(f"{', '.join(empty)}: nothing to try; give one value or more")
    for parts in tried["accumulate"] or ():
        check_count("accumulate", parts)
    if not budget >= 1:
        raise ValueError(f"memory_bytes must be a positive number of bytes, got {budget!r}")


def _wanted(strategies: Iterable[str | type[Strategy]]) -> set[str]:
    named = [strategies] if isinstance(strategies, str) else list(strategies)
    classes, known = [by_name(strategy) for strategy in named], {**STRATEGIES, **MESHED}
    if own := [cls for cls in classes if known.get(cls.name) is not cls]:
        names = ", ".join(cls.__name__ for cls in own)
        raise ValueError(
            f"the planner ranks the library's strategies with options of its own choice; {names} "
            "is none of these. predict tells the time of any class"
        )
    return {cls.name for cls in classes}


def pareto(plans: Iterable[Plan]) -> list[Plan]:
    """Those plans that run and that no other beats in both time and memory, the fastest first.

    Examples
    --------
    >>> small, fast = (Plan("x", 1, None, "none", True, "", s, m) for s, m in ((2, 1), (1, 2)))
    >>> bad = Plan("x", 1, None, "none", True, "", 3, 3)
    >>> pareto([small, bad, fast]) == [fast, small]
    True
    """
    front: list[Plan] = []
    runs = (q for q in plans if q.memory_bytes is not None)
    for q in sorted(runs, key=lambda q: (q.seconds, q.memory_bytes)):
        if not front or q.memory_bytes < front[-1].memory_bytes:
            front.append(q)
    return front


def _of(candidate: Candidate, spec, cluster, p, timed, tried, budget) -> list[Plan]:
    """A candidate in every way that is tried; once, with the reason, if it runs in none."""
    name, mesh, options = candidate
    plans, refused = [], []
    try:
        shard = first_cut(spec, name, p, timed["dtype"], mesh, options)
    except ValueError as error:
        return [Plan(name, p, mesh, "none", False, str(error), options=options)]
    samples = shard_size(spec.batch, (mesh or {}).get(DATA, 1))
    parts = tried["accumulate"] or [n for n in range(1, samples + 1) if samples % n == 0]
    enough: set[tuple] = set()
    for accumulate, checkpoint, cut in product(parts, tried["checkpoint"], tried["fsdp"]):
        if tried["accumulate"] is None and (checkpoint, cut) in enough and accumulate < samples:
            continue  # slower than what fits already, and not the least that could be needed
        how = {"checkpoint": checkpoint, "fsdp": cut, "accumulate": accumulate}
        given = {"p": p, "mesh": mesh, "shard": shard, **how, **options}
        try:
            cost = predict(spec, name, cluster, **timed, **given)
        except ValueError as error:  # such as FSDP of weights that are cut already
            refused.append(str(error))
            continue
        held = cost.memory_bytes
        binds, reason = bound(cost)
        enough |= {(checkpoint, cut)} if held <= budget else set()
        plans.append(
            Plan(name, p, mesh, fits=held <= budget, reason=reason, seconds=cost.seconds,
                 memory_bytes=held, memory_exact=cost.memory_exact, binds=binds, options=options,
                 cost=cost, **how)
        )  # fmt: skip
    why = "; or: ".join(dict.fromkeys(refused))
    return plans or [Plan(name, p, mesh, "none", False, why, options=options)]


def first_cut(spec, strategy: str, p: int, dtype: str, mesh, options) -> str | None:
    """The dim that a strategy cuts first, or ValueError if it can't run."""
    memory = {"checkpoint": "none", "switch": "inside", "accumulate": 1, "fsdp": False}
    return prepared(spec, strategy, p, dtype, None, mesh, memory, options)[1]


def bound(cost: Cost) -> tuple[str, str]:
    """What most of the time of a step goes to, in a word and in a sentence.

    The exposed part of communication is shared out as all of it between links and network.
    """
    exposed, all_of_it = cost.exposed_communication_s, cost.communication_s
    across = exposed * cost.inter_node_s / all_of_it if all_of_it else 0.0
    parts = {
        "compute": cost.compute_s - cost.memory_bound_s,
        "memory": cost.memory_bound_s + cost.relayout_s,
        "link": exposed - across,
        "NIC": across,
        "overhead": cost.overhead_s,
    }
    most = max(parts, key=parts.get)
    return most, f"{most} takes {parts[most] / cost.seconds:.0%} of the step"


def _advised(plans: list[Plan], budget: int, spec: TransformerSpec) -> list[Plan]:
    """Tell the plans that need too much memory what the smallest change is that would fit."""
    advised = []
    for q in plans:
        if not q.fits and q.memory_bytes is not None:
            alike = [r for r in plans if (r.strategy, r.mesh) == (q.strategy, q.mesh)]
            able = [_changes(q, r) for r in sorted(alike, key=lambda r: r.seconds or 0) if r.fits]
            least = min(able, key=len, default=[f"with {_untried(q, alike, spec)} it"])
            way = f"{' and '.join(least)} {'would' if able else 'may'} fit"
            needs = f"needs {human_bytes(q.memory_bytes)} of {human_bytes(budget)} of memory"
            q = replace(q, reason=f"{needs}; {way}")
        advised.append(q)
    return advised


def _untried(q: Plan, alike: list[Plan], spec: TransformerSpec) -> str:
    """What may make a plan fit and was not tried."""
    ways = [] if any(r.checkpoint == "block" for r in alike) else ["checkpoint='block'"]
    ways += ["more ranks"] if q.strategy != "single" else []
    ways += ["a smaller batch"] if spec.batch > 1 else []
    return " or ".join(ways or ["another strategy on more ranks"])


def _changes(one: Plan, other: Plan) -> list[str]:
    """The settings beside the mesh that differ, as the other has them."""
    names = ("checkpoint", "fsdp", "accumulate")
    changed = ((name, getattr(other, name)) for name in names)
    return [f"{name}={value!r}" for name, value in changed if value != getattr(one, name)]
