"""All numbers of a cluster in one table, each with its kind and source."""

from dataclasses import fields
from typing import NamedTuple

from workbench.cluster.figure import KINDS, Figure
from workbench.cluster.parts import Cluster, Device, Link

#: The ending of a field's name -> the unit it is in.
_UNITS = (("flops_per_s", "flop/s"), ("bytes_per_s", "bytes/s"), ("bytes", "bytes"), ("_s", "s"))

#: A link's numbers by kind of collective: field -> what it is called, its unit, its property.
_BY_KIND = {
    "bandwidth_bytes_per_s": ("bandwidth", "bytes/s", "rates"),
    "alpha_s": ("latency", "s", "alphas"),
}


class FigureRow(NamedTuple):
    """One number of a cluster: what of, its name, value and unit, and how it is known."""

    part: str
    name: str
    value: float | None
    unit: str
    kind: str
    source: str


#: What is taken where a number is not known.
_DEFAULTS = {
    "matmul_flops_per_s": "the peak is taken",
    "attention_flops_per_s": "a third of the peak is taken",
    "memory_bytes_per_s": "taken as so fast that it costs nothing",
    "copy_bytes_per_s": "the memory's rate is taken",
    "attention_row_s": "taken as nothing",
    "attention_tile": "no more flops are taken than are needed",
    "nics_per_node": "one for each device is taken",
}


def figures_of(cluster: Cluster) -> list[FigureRow]:
    """List every number of a cluster with its unit, kind (a key of `KINDS`) and source.

    A number that no public figure was found for has the kind ``"not found"``.

    Examples
    --------
    >>> from workbench.cluster.presets import CLUSTERS
    >>> row = figures_of(CLUSTERS["dgx-h100"])[1]
    >>> row.name, row.value / 1e12, row.unit, row.kind
    ('peak_flops_per_s', 989.0, 'flop/s', 'spec')
    """
    rows = _rows(cluster.device, cluster.device.source)
    if cluster.alone is not None:
        rows += _rows(cluster.alone, cluster.alone.source)
    rows += _rows(cluster.intra)
    if cluster.inter is None:
        missing = cluster.notes or "no network was given"
        rows.append(FigureRow("network", "bandwidth_bytes_per_s", None, "bytes/s", "not found",
                              missing))  # fmt: skip
    else:
        rows += _rows(cluster.inter)
    whole = ("gpus_per_node", "nodes", "nics_per_node", "oversubscription", "step_overhead_s",
             "overlap")  # fmt: skip
    return rows + [_row(cluster.name, name, getattr(cluster, name), "") for name in whole]


def _rows(part: Device | Link, source: str = "") -> list[FigureRow]:
    rows = []
    for field in fields(part):
        value = getattr(part, field.name)
        by_kind = _BY_KIND.get(field.name)
        if by_kind:
            name, unit, of = by_kind
            given = getattr(part, of)
            others = "any other" if len(given) > 1 else "any kind"
            rows += [
                _row(part.name, f"{name} of {others if kind == '*' else kind}", each, "", unit)
                for kind, each in given.items()
            ]
        elif not isinstance(value, str):
            rows.append(_row(part.name, field.name, value, source))
    return rows


def _row(part: str, name: str, value, source: str, unit: str | None = None) -> FigureRow:
    if unit is None:
        unit = next((unit for ending, unit in _UNITS if name.endswith(ending)), "")
    if isinstance(value, Figure):
        return FigureRow(part, name, float(value), unit, value.kind, value.source)
    if value is None:
        return FigureRow(part, name, None, unit, "not found", _DEFAULTS[name])
    sheet = bool(source) and name in ("memory_bytes", "peak_flops_per_s")
    kind = "spec" if sheet else "given"
    return FigureRow(part, name, value, unit, kind, source if sheet else KINDS["given"])
