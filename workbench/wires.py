"""Steps on wires of a set speed, measured in a cluster in a box, beside the same steps on none."""

import json
import pathlib
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import inf
from numbers import Real

from workbench.box import SLOWEST
from workbench.collectives import Collective, crossing_bytes
from workbench.launch import run_box, run_local
from workbench.rank import rank_step
from workbench.strategies import choose_shard, select
from workbench.transformer import TransformerSpec

#: Bytes per second in one Gbit/s.
GBIT_PER_S = 125e6
#: What `recorded` reads: written by ``python benchmarks/box.py --record``.
_RECORDED = pathlib.Path(__file__).with_name("recorded_box.json")


@dataclass(frozen=True)
class WireRow:
    """One strategy's training step at one speed of the wires.

    Attributes
    ----------
    strategy : str
        A key of `STRATEGIES`.
    gbit_per_s : float
        Speed of each node's card, each way [Gbit/s].
    seconds, local_s : float
        Median of the slowest rank: in the box, and on the same machine without wires [s].
    crossing_bytes : int
        What a node's card carries away, by the log [bytes].
    """

    strategy: str
    gbit_per_s: float
    seconds: float
    local_s: float
    crossing_bytes: int

    @property
    def wire_s(self) -> float:
        """What a card needs for these bytes at its speed [s]."""
        return self.crossing_bytes / (self.gbit_per_s * GBIT_PER_S)

    @property
    def expected_s(self) -> float:
        """The step without wires, and then the wires, with nothing hidden behind another [s]."""
        return self.local_s + self.wire_s


def measure(
    spec: TransformerSpec,
    strategies: Sequence[str],
    gbit_per_s: Sequence[float],
    *,
    nodes: int = 2,
    ranks_per_node: int = 2,
    repeats: int = 5,
    timeout_s: float = 300.0,
) -> list[WireRow]:
    """Run a training step of each strategy at each speed; one launch a speed, and one without.

    Raises
    ------
    ValueError
        If a strategy can't run the model.
    NoBoxError
        As `run_box`.
    """
    p = nodes * ranks_per_node
    runs = []
    for name in strategies:
        cls = select(name, spec, p)
        runs.append((name, cls, choose_shard(cls, spec, p, spec.branches, None)))

    for speed in gbit_per_s:
        if not isinstance(speed, Real) or not SLOWEST / GBIT_PER_S <= speed < inf:
            raise ValueError(
                f"a wire's speed is a finite number of Gbit/s, {SLOWEST / GBIT_PER_S:g} or more; "
                f"got {speed!r}"
            )
    fn = partial(_medians, spec=spec, runs=runs, repeats=repeats)
    how = {"nodes": nodes, "ranks_per_node": ranks_per_node, "timeout_s": timeout_s}
    local, rows = run_local(fn, p, timeout_s=timeout_s), []
    for speed in gbit_per_s:
        boxed = run_box(fn, inter_bandwidth=speed * GBIT_PER_S, **how)
        for name in strategies:
            slowest, alone = (max(rank[name][0] for rank in ranks) for ranks in (boxed, local))
            carried = crossing_bytes(as_gloo(boxed[0][name][1]), nodes, ranks_per_node)
            rows.append(WireRow(name, speed, slowest, alone, carried))
    return rows


def _medians(rank, comm, spec, runs, repeats) -> dict:
    """By strategy, on one rank: the median of a step's seconds, and its log."""
    found = {}
    for name, cls, shard in runs:
        step = rank_step(comm, spec, cls, "float32", 0, shard, repeats)
        found[name] = statistics.median(step["seconds"]), list(step["log"])
    return found


def as_gloo(log: Sequence[Collective]) -> list[Collective]:
    """The log as it travels here: on gloo a reduce-scatter is an exchange and a local sum."""
    exchange = {"reduce_scatter": "all_to_all"}
    return [replace(record, kind=exchange.get(record.kind, record.kind)) for record in log]


def recorded() -> list[WireRow]:
    """Rows that were measured once, elsewhere, for machines that can't make a box."""
    return [WireRow(**row) for row in json.loads(_RECORDED.read_text())["rows"]]


def record(rows: Sequence[WireRow], machine: str) -> None:
    """Keep rows for `recorded`, with a word on where they are from."""
    kept = {"machine": machine, "rows": [asdict(row) for row in rows]}
    _RECORDED.write_text(json.dumps(kept, indent=1) + "\n")
