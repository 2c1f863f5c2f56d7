"""The timeline that a prediction means: its seconds laid out layer by layer, stage by stage."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from workbench.cluster import Cluster
from workbench.cost import check_chunks, step_counts
from workbench.dims import check_count
from workbench.strategies import Strategy
from workbench.timeline.spans import LANES, Span
from workbench.timing import LAUNCHES, Clock, StepCounts, Timed
from workbench.transformer import TransformerSpec

_KERNELS = ("matmul", "attention", "elementwise")
#: FSDP's gathers come ahead of a visit's other collectives, its scatters after them.
_OF_WEIGHTS = {"weights": -1, "gradients": 1}


def predicted_timeline(
    spec: TransformerSpec,
    strategy: str | type[Strategy],
    cluster: Cluster,
    *,
    p: int,
    ranks: int = 1,
    gradient_sync: str | None = None,
    switch_chunks: int = 1,
    **run,
) -> list[Span]:
    """Lay the seconds of `predict` out in the order in which a rank spends them.

    Parameters
    ----------
    spec, strategy, cluster, p, gradient_sync, switch_chunks, **run
        As for `predict`.
    ranks : int
        How many to draw. All are predicted alike, and none waits for another.

    Returns
    -------
    list of Span
        Layer by layer and stage by stage, forward, then backward, then the sum of gradients. The
        sums of their parts are those of `predict`; hidden transfers have lanes of their own.

    Raises
    ------
    ValueError
        As `predict`.

    Notes
    -----
    What is known is a stage's share, not the order of its kernels: all matrix products of a visit
    are drawn as one span, then attention, then the rest. Of its collectives the first half comes
    before them and the second after; backward it is the other way round. A ring's exposed shifts
    follow its attention, beside which the hidden ones are drawn.

    Examples
    --------
    >>> from workbench.cluster import CLUSTERS
    >>> from workbench.cost import predict
    >>> from workbench.timeline.spans import totals
    >>> from workbench.transformer import PRESETS
    >>> model, box = PRESETS["stdit-xl-2"], CLUSTERS["dgx-h100"]
    >>> spans = predicted_timeline(model, "dsp", box, p=8)
    >>> gap = totals(spans)["compute"] / predict(model, "dsp", box, p=8).compute_s - 1
    >>> abs(gap) < 1e-9
    True
    """
    sync = cluster.summing(gradient_sync)
    check_count("ranks", ranks)
    if ranks > p:
        raise ValueError(f"ranks={ranks} of p={p}: at most all of them can be drawn")
    check_chunks(strategy, switch_chunks, run.get("around"))
    step = step_counts(spec, strategy, cluster, p=p, **run)
    spans = _Line(step, cluster.working(p), sync, switch_chunks).spans()
    return [replace(span, rank=rank) for rank in range(ranks) for span in spans]


class _Line:
    """Draws one rank's spans one after another."""

    def __init__(self, step: StepCounts, cluster: Cluster, gradient_sync: str, chunks: int):
        self.step, self.cluster = step, cluster
        self.clock = Clock(step, cluster, gradient_sync, chunks)
        self.visits = step.spec.num_layers * step.accumulate
        self.made = {
            number: self.clock.transfers(number) for number in (*range(len(step.spec.stages)), None)
        }
        self.at = dict.fromkeys(LANES, 0.0)
        self.found: list[Span] = []
        scatters = (s for s in step.sent if s.phase == "gradients")
        self.scatters = {(s.stage, s.sent_bytes): s.count for s in scatters}

    def spans(self) -> list[Span]:
        layers, stages = self.step.spec.num_layers, range(len(self.step.spec.stages))
        backward = any(kernel.phase == "backward" for kernel in self.step.done)
        for each in self.made[None]:
            if each.sent.phase == "weights":
                self._collectives(each, each.sent.count, {"phase": "weights"})
        for first in range(0, self.visits, layers):
            for layer in range(layers):
                for stage in stages:
                    self._visit(first + layer, "forward", layer, stage)
            for layer in reversed(range(layers)) if backward else ():
                for stage in reversed(stages):
                    self._visit(first + layer, "backward", layer, stage)
        self._gradients()
        self._add("overhead", "each step", self.cluster.step_overhead_s, {})
        return self.found

    def _visit(self, visit: int, phase: str, layer: int, stage: int) -> None:
        """One stage of one layer, in one direction."""
        place, begun = {"phase": phase, "layer": layer, "stage": stage}, self.at["step"]
        here = [(each, self._share(each, phase, visit)) for each in self.made[stage]]
        here = [(each, count) for each, count in here if count]
        kernels = (k for k in self.step.done if (k.stage, k.phase) == (stage, phase))
        launches = sum(k.count for k in kernels) / self.visits + LAUNCHES * sum(n for _, n in here)
        self._add("overhead", "launches", launches * self.cluster.device.launch_s, place)
        rings = [pair for pair in here if pair[0].sent.kind == "ring_shift"]
        before, after = _halves([pair for pair in here if pair not in rings], phase)
        for each, count in before:
            self._collectives(each, count, place, begun)
        for kind in _KERNELS:
            began = self.at["step"]
            spent = self.clock.computed[stage, phase, kind] / self.visits
            self._add("compute", kind, spent, place)
            for each, count in rings if kind == "attention" else ():
                self._collectives(each, count, place, began)
        for each, count in after:
            self._collectives(each, count, place, begun)

    def _share(self, each: Timed, phase: str, visit: int) -> int:
        """How many of a step's equal collectives one visit makes."""
        sent, count = each.sent, each.sent.count
        if sent.phase == "weights":  # FSDP gathers forward as often as it scatters
            once = self.scatters.get((sent.stage, sent.sent_bytes), count)
            count = once if phase == "forward" else count - once
        elif {"gradients": "backward"}.get(sent.phase, sent.phase) != phase:
            return 0
        first, layers = visit % self.step.spec.num_layers == 0, self.step.spec.num_layers
        others = self.visits - self.visits // layers
        if count % self.visits and others and count % others == 0:
            return 0 if first else count // others  # nothing to switch ahead of the first layer
        return (visit + 1) * count // self.visits - visit * count // self.visits

    def _collectives(self, each: Timed, count: int, place: Mapping[str, Any], beside=None) -> None:
        """``count`` of equal collectives, with the copies before and after them."""
        sent = each.sent
        part = count / sent.count
        place = {**place, "count": count}
        began = self.at["step"] if beside is None else beside
        self._add("hidden", sent.kind, each.hidden_s * part, place, LANES[1], began)
        self._add("relayout", sent.kind, each.relayout_s * part / 2, place)
        self._add("communication", sent.kind, each.exposed_s * part, place)
        self._add("relayout", sent.kind, each.relayout_s * part / 2, place)

    def _gradients(self) -> None:
        """The sum of all weights' gradients: what is hidden ends with the backward."""
        place = {"phase": "gradients"}
        for each in (each for each in self.made[None] if each.sent.phase == "gradients"):
            began = self.at["step"] - each.hidden_s
            self._add("hidden", each.sent.kind, each.hidden_s, place, LANES[2], began)
            self._collectives(each._replace(hidden_s=0.0), each.sent.count, place)
        launches = LAUNCHES * sum(each.sent.count for each in self.made[None])
        self._add("overhead", "launches", launches * self.cluster.device.launch_s, place)

    def _add(self, part, kind, seconds, place, lane=LANES[0], began=0.0) -> None:
        """Put a span where its lane is free, no earlier than ``began``."""
        if seconds <= 0:
            return
        start = max(self.at[lane], began)
        self.found.append(Span(0, lane, part, kind, start, seconds, **place))
        self.at[lane] = start + seconds


def _halves(pairs: list[tuple[Timed, int]], phase: str) -> tuple[list, list]:
    """Collectives before a stage's kernels, and those after them."""
    ahead: dict[str, list] = defaultdict(list)
    total = sum(count for _, count in pairs)
    room = (total + (phase == "forward")) // 2
    ordered = pairs if phase == "forward" else pairs[::-1]
    for each, count in sorted(ordered, key=lambda pair: _OF_WEIGHTS.get(pair[0].sent.phase, 0)):
        here = min(room, count)
        room -= here
        ahead["before"] += [(each, here)] if here else []
        ahead["after"] += [(each, count - here)] if count > here else []
    return ahead["before"], ahead["after"]
