"""What would change the answer: crossovers, sensitivity, scaling, and sweeps over anything."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import isfinite, log
from numbers import Real
from typing import Any, NamedTuple

from workbench.cluster import Cluster, Link
from workbench.cost import Cost, predict
from workbench.dims import check_count
from workbench.mesh import DATA
from workbench.planner.bands import Band, validated
from workbench.strategies import MESHED, by_name
from workbench.transformer import TransformerSpec

#: Numbers of a machine that may be varied beside the model's dims, its batch and p: a factor to
#: the cluster's own.
MACHINE = ("intra_bandwidth", "inter_bandwidth", "latency", "matmul", "attention", "memory_rate")


class Crossover(NamedTuple):
    """Between two neighbouring values the faster of two strategies changes."""

    below: float
    above: float
    faster_below: str
    faster_above: str


class Sensitivity(NamedTuple):
    """How a step's time answers to one number: ``elasticity`` -1 means twice as much, half as long.

    ``seconds`` is the time with ``factor`` times as much of it; sizes are whole numbers, so it may
    be a little more or less than what was asked for.
    """

    name: str
    factor: float
    seconds: float
    elasticity: float


class Point(NamedTuple):
    """A point of a scaling curve; ``efficiency`` is against the first point.

    The step is expected between ``low_s`` and ``high_s`` [s]; beyond the band's ``checked_to``
    ranks nobody has checked it.
    """

    p: int
    cost: Cost
    efficiency: float
    low_s: float
    high_s: float
    band: Band


def varied(
    spec: TransformerSpec, cluster: Cluster, p: int, name: str, value: float
) -> tuple[TransformerSpec, Cluster, int]:
    """Change one thing: a dim, ``"batch"``, ``"p"``, or a number of `MACHINE` by a factor.

    Raises
    ------
    ValueError
        If nothing has that name.
    """
    if name not in MACHINE and value % 1:
        raise ValueError(f"{name}={value!r}: a whole number is needed")
    if name in spec.dims:
        return replace(spec, dims={**spec.dims, name: int(value)}), cluster, p
    if name == "batch":
        return replace(spec, batch=int(value)), cluster, p
    if name == "p":
        return spec, cluster, int(value)
    if name not in MACHINE:
        known = [*spec.dims, "batch", "p", *MACHINE]
        raise ValueError(f"cannot vary {name!r}; known are {', '.join(known)}")
    return spec, _machine(cluster.working(p), name, value), p


def _machine(cluster: Cluster, name: str, factor: float) -> Cluster:
    cluster = replace(cluster, alone=None)  # it is as it is while these ranks work
    device, intra, inter = cluster.device, cluster.intra, cluster.inter
    if name == "intra_bandwidth":
        return replace(cluster, intra=_faster(intra, factor))
    if name == "inter_bandwidth":
        return replace(cluster, inter=inter and _faster(inter, factor))
    if name == "latency":
        later = inter and _later(inter, factor)
        return replace(cluster, intra=_later(intra, factor), inter=later)
    rates = {
        "matmul": {"matmul_flops_per_s": device.matmul_rate * factor},
        "attention": {"attention_flops_per_s": device.attention_rate * factor},
        "memory_rate": {
            "memory_bytes_per_s": device.memory_rate * factor,
            "copy_bytes_per_s": device.copy_rate * factor,
        },
    }
    return replace(cluster, device=replace(device, **rates[name]))


def _faster(link: Link, factor: float) -> Link:
    rates = {kind: rate * factor for kind, rate in link.rates.items()}
    return replace(link, bandwidth_bytes_per_s=rates)


def _later(link: Link, factor: float) -> Link:
    later = {name: getattr(link, name) * factor for name in ("step_s", "message_s")}
    alphas = {kind: alpha * factor for kind, alpha in link.alphas.items()}
    return replace(link, alpha_s=alphas, **later)


def crossover(
    spec: TransformerSpec, cluster: Cluster, first: str, second: str, *, p: int, vary: str,
    values: Sequence[float], **options,
) -> list[Crossover]:  # fmt: skip
    """Find where another of two strategies becomes the faster one.

    Parameters
    ----------
    first, second : str
        Two strategies.
    vary : str
        A dim, ``"batch"``, ``"p"`` or one of `MACHINE`, which are factors to the cluster's own.
    values : sequence of float
        In increasing order. Values at which one of them can't run, or at which both take equally
        long, are left out.
    **options
        Of `predict`, for both.

    Raises
    ------
    ValueError
        If a word is unknown, of strategies, of options or of what can vary.

    Examples
    --------
    >>> from workbench.cluster import CLUSTERS
    >>> from workbench.transformer import PRESETS
    >>> box, stdit = CLUSTERS["8x-l40s"], PRESETS["stdit-xl-2"]
    >>> found = crossover(stdit, box, "dsp", "ring", p=4, vary="intra_bandwidth",
    ...                   values=[0.1, 1, 10, 100])
    >>> found  # DSP at any
    []
    """
    found, before = [], None
    varied(spec, cluster, p, vary, 1)  # refuses a word that is not known
    for strategy in (first, second):
        _check_words([spec], [strategy], [cluster], [p], options)
    for value in values:
        model, machine, ranks = varied(spec, cluster, p, vary, value)
        costs = [_or_none(model, name, machine, ranks, options) for name in (first, second)]
        if None in costs or costs[0].seconds == costs[1].seconds:
            continue
        faster = first if costs[0].seconds < costs[1].seconds else second
        if before is not None and before[1] != faster:
            found.append(Crossover(before[0], value, before[1], faster))
        before = value, faster
    return found


def sensitivity(
    spec: TransformerSpec, strategy: str, cluster: Cluster, *, p: int, factor: float = 2.0,
    **options,
) -> list[Sensitivity]:  # fmt: skip
    """Say how a step's time answers to each number of the machine, to each dim, and to ``p``.

    What cannot be varied like this, such as a dim that a factor leaves uneven, still counts its
    padding; what the strategy then refuses, or what the factor is too near to 1 to change, is left
    out.
    """
    if not (isinstance(factor, Real) and isfinite(factor) and factor > 0 and factor != 1):
        raise ValueError(f"factor={factor!r}: how many times as much, above 0 and not 1; try 2")
    base = predict(spec, strategy, cluster, p=p, **options).seconds
    sizes = {**spec.dims, "batch": spec.batch, "p": p}
    found = []
    for name in [*MACHINE, *sizes]:
        size = sizes.get(name, 1)
        value = factor if name in MACHINE else max(1, round(size * factor))
        if value == size:
            continue
        try:
            model, machine, ranks = varied(spec, cluster, p, name, value)
            seconds = predict(model, strategy, machine, p=ranks, **options).seconds
        except ValueError:
            continue
        more = value / size
        found.append(Sensitivity(name, more, seconds, log(seconds / base) / log(more)))
    return found


def scaling(
    spec: TransformerSpec, strategy: str, cluster: Cluster, *, ps: Sequence[int],
    weak: str | None = None, band: Band | None = None, **options,
) -> list[Point]:  # fmt: skip
    """A scaling curve over ``ps``: strong, or weak in a dim or ``"batch"`` that grows with p.

    Efficiency is the throughput of a device, in tokens a second, over that of the first point.

    Parameters
    ----------
    spec, strategy, cluster, **options
        As for `predict`.
    ps : sequence of int
        Ranks, the fewest first.
    weak : str or None
        What grows with the ranks; ``None``: nothing.
    band : Band or None
        How far off predictions may be, as `band_of` makes it of errors that were found; ``None``:
        those of published numbers that nothing was fitted to (`validated`).
    """
    if weak is not None and weak not in (*spec.dims, "batch"):
        raise ValueError(f"weak={weak!r}: it is None, 'batch' or one of {', '.join(spec.dims)}")
    points: list[Point] = []
    if not isinstance(ps, Iterable):
        raise ValueError(f"ps={ps!r}: it is a list of numbers of ranks, the fewest first")
    for p in (ps := list(ps)):
        check_count("p (the number of ranks)", p)
    band = validated() if band is None else band
    for p in ps:
        model = spec
        if weak is not None:
            size = spec.batch if weak == "batch" else spec.dims[weak]
            model, _, _ = varied(spec, cluster, p, weak, max(1, size * p // ps[0]))
        cost = predict(model, strategy, cluster, p=p, **options)
        each = cost.tokens_per_s / p
        first = points[0].cost.tokens_per_s / ps[0] if points else each
        ends = (factor * cost.seconds for factor in (band.low, band.high))
        points.append(Point(p, cost, each / first, *ends, band))
    return points


def sweep(
    specs: Iterable[TransformerSpec], strategies: Iterable[str], clusters: Iterable[Cluster],
    ps: Iterable[int], options: Iterable[Mapping[str, Any]] = ({},),
) -> list[tuple[TransformerSpec, str, Cluster, int, Mapping[str, Any], Cost | None]]:  # fmt: skip
    """Predict every combination; ``None`` where a strategy can't run it or devices are too few.

    Counting what a step does takes longer than timing it, so clusters vary fastest.

    Raises
    ------
    ValueError
        If a strategy is unknown, or options are no strategy's.
    """
    rows = []
    axes = specs, strategies, clusters, ps, options
    specs, strategies, clusters, ps, options = map(list, axes)
    for chosen in options if clusters else ():
        _check_words(specs, strategies, clusters, ps, chosen)
    for spec in specs:
        for strategy in strategies:
            for p in ps:
                for chosen in options:
                    for cluster in clusters:
                        cost = _or_none(spec, strategy, cluster, p, chosen)
                        rows.append((spec, strategy, cluster, p, chosen, cost))
    return rows


def _check_words(specs, strategies, clusters, ps, options: Mapping[str, Any]) -> None:
    """Raise what `predict` raises of words that no strategy knows: on one device, where all run."""
    for p in ps:
        check_count("p (the number of ranks)", p)
    for given, kind in [*product(clusters, [Cluster]), *product(specs, [TransformerSpec])]:
        if not isinstance(given, kind):
            raise ValueError(f"a {kind.__name__} is needed; got {given!r}")
    alone = {name: value for name, value in options.items() if name not in ("mesh", "accumulate")}
    check_count("accumulate", options.get("accumulate", 1))
    mesh = options.get("mesh") or {}
    known = {axis for cls in MESHED.values() for axis in cls.axes}
    own = set(mesh) - {DATA} if isinstance(mesh, Mapping) else mesh
    if not isinstance(mesh, Mapping) or not (len(own) < 2 or known.issuperset(own)):
        raise ValueError(
            f"mesh={mesh!r}: it says how many ranks there are along {DATA!r} and one axis, or two "
            f"of {', '.join(sorted(known))}"
        )
    classes, refused = list(map(by_name, strategies)), None
    for spec, cls in product(specs, classes):
        try:
            predict(spec, cls, clusters[0], p=1, **alone)
        except ValueError as error:
            refused = error
        else:
            return
    if refused is not None:
        raise refused


def _or_none(spec, strategy, cluster, p, options) -> Cost | None:
    try:
        return predict(spec, strategy, cluster, p=p, **options)
    except ValueError:
        return None
