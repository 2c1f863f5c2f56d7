"""A step's kernels and collectives on a cluster: how long each stage takes, and what hides."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil, prod
from typing import NamedTuple

from workbench.cluster import Cluster, Device
from workbench.collectives import is_bucket
from workbench.hiding import behind_the_backward, in_chunks, prefetched, round_the_ring
from workbench.traffic import Sent
from workbench.transformer import TransformerSpec
from workbench.wire import collective_seconds, crosses, placements
from workbench.work import Kernel

#: Flops of an attention's backward that are not counted: the scores, computed a second time.
#: Source: Dao et al. (2022), FlashAttention, arXiv:2205.14135: 5 products backward, 4 counted.
_BACKWARD_AGAIN = 5 / 4
#: Bytes that a re-layout reads and writes, per byte of the input buffer: a copy into chunks and
#: one out of them; a gather joins p parts; a reduction only makes chunks, or copies its input.
#: Source: `workbench.comm.Comm`, which makes these copies.
_COPIED = {
    "all_to_all": lambda p: 4, "all_gather": lambda p: 2 * p, "reduce_scatter": lambda p: 2,
    "all_reduce": lambda p: 2, "ring_shift": lambda p: 0,
}  # fmt: skip
#: A bucket of gradients is filled and emptied.
_BUCKET_COPIED = 4
#: Launches of a collective: itself, and the copies before and after it.
LAUNCHES = 3


@dataclass(frozen=True)
class StageCost:
    """The part of a step that one stage has in all layers together [s]; hidden time is apart."""

    stage: str
    compute_s: float
    exposed_communication_s: float
    relayout_s: float
    hidden_communication_s: float = 0.0


@dataclass(frozen=True)
class StepCounts:
    """What one rank computes and sends in a step, whatever the machine.

    ``axes`` are the mesh's, the outermost first; the last one's ranks are neighbours.
    """

    spec: TransformerSpec
    strategy: str
    p: int
    dtype: str
    axes: Mapping[str, int]
    accumulate: int
    done: tuple[Kernel, ...]
    sent: tuple[Sent, ...]
    _last: list = field(default_factory=list, init=False, repr=False, compare=False)

    def computing(self, device: Device) -> "Computing":
        """What the kernels take on a device; the last answer is kept, for another network."""
        if not (self._last and self._last[0] is device):
            self._last[:] = device, computing(self.done, device)
        return self._last[1]

    def forward(self) -> "StepCounts":
        """The forward pass alone; FSDP gathers its weights once."""
        done = tuple(k for k in self.done if k.phase == "forward")
        sent = [s for s in self.sent if s.phase == "forward"]
        for gather in (s for s in self.sent if s.phase == "weights"):
            scatters = (s for s in self.sent if s.phase == "gradients" and s.stage == gather.stage)
            once = {s.sent_bytes: s.count for s in scatters}
            sent.append(gather._replace(count=once[gather.sent_bytes]))
        return replace(self, done=done, sent=tuple(sent))

    def group(self, axis: str) -> tuple[int, int]:
        """Ranks along an axis, and how far apart they are."""
        if axis not in self.axes:
            return self.p, 1
        inner = list(self.axes)[list(self.axes).index(axis) + 1 :]
        return self.axes[axis], prod(self.axes[name] for name in inner)

    @property
    def launches(self) -> float:
        """Kernels and copies that are launched."""
        return sum(k.count for k in self.done) + LAUNCHES * sum(s.count for s in self.sent)

    def launches_of_chunks(self, chunks: int) -> float:
        """What more is launched where switches behind an MLP are cut into so many chunks."""
        cut = sum(s.count for s in self.sent if self.cut_in_chunks(s))
        return LAUNCHES * cut * (chunks - 1)

    def cut_in_chunks(self, sent: Sent) -> bool:
        """Is there an MLP before it? With one MLP a layer, ahead of the first stage only."""
        behind = self.spec.mlp_per == "stage" or sent.stage == 0
        return sent.kind == "all_to_all" and behind


def timed(
    step: StepCounts, cluster: Cluster, gradient_sync: str, switch_chunks: int = 1
) -> tuple[list[StageCost], dict[str, float]]:
    """Seconds of each stage, and other sums of seconds, by the names that `Cost` gives them.

    The last stage is none: the gradients of all weights, summed in one go.
    """
    clock = Clock(step, cluster, gradient_sync, switch_chunks)
    names = ["x".join(stage) for stage in step.spec.stages]
    stages = [clock.stage(number, name) for number, name in enumerate(names)]
    stages.append(clock.stage(None, "weights"))
    sums = {"memory_bound_s": clock.by_bytes_s, "inter_node_s": clock.across_s}
    return stages, sums | {f"{kind}_s": spent for kind, spent in clock.kinds.items()}


class Computing(NamedTuple):
    """Seconds of kernels, added up: by stage, phase and kind; by kind; by stage.

    ``by_bytes_s`` are those of kernels that wait for memory rather than compute.
    """

    computed: Mapping[tuple, float]
    kinds: Mapping[str, float]
    stages: Mapping[int, float]
    by_bytes_s: float


def computing(done: Iterable[Kernel], device: Device) -> Computing:
    """Add up the seconds of kernels on a device."""
    computed: Counter = Counter()
    stages: Counter = Counter()
    kinds = dict.fromkeys(("matmul", "attention", "elementwise"), 0.0)
    by_bytes_s = 0.0
    for kernel in done:
        once = kernel_seconds(kernel, device)
        spent = kernel.count * once
        if kernel.bytes / device.memory_rate == once:
            by_bytes_s += spent
        kinds[kernel.kind] += spent
        stages[kernel.stage] += spent
        computed[kernel.stage, kernel.phase, kernel.kind] += spent
    return Computing(computed, kinds, stages, by_bytes_s)


class Timed(NamedTuple):
    """Equal collectives, and what all of them together take: exposed, hidden, their copies [s]."""

    sent: Sent
    exposed_s: float
    hidden_s: float
    relayout_s: float


class Clock:
    """Adds up the seconds of a step.

    ``computed`` has those of kernels by stage, phase and kind.
    """

    def __init__(
        self, step: StepCounts, cluster: Cluster, gradient_sync: str, switch_chunks: int = 1
    ):
        self.step, self.cluster, self.gradient_sync = step, cluster, gradient_sync
        self.switch_chunks = switch_chunks
        self.across_s = 0.0
        self.computed, self.kinds, self._stages, self.by_bytes_s = step.computing(cluster.device)

    def stage(self, number: int | None, name: str) -> StageCost:
        made = self.transfers(number)
        for sent in (each.sent for each in made):
            ranks, stride = self.step.group(sent.axis)
            if crosses(placements(ranks, self.cluster.gpus_per_node, stride, self.step.p)):
                self.across_s += sent.count * self._once(sent)
        exposed, hidden, copies = (sum(each[i] for each in made) for i in (1, 2, 3))
        return StageCost(name, self._computing(number), exposed, copies, hidden)

    def transfers(self, number: int | None) -> list[Timed]:
        """All collectives of a stage; of stage ``None`` those of weights that belong to none.

        Gathers and scatters of weights that are cut hide together, behind computing that hides
        nothing else; each has its share of what is exposed.
        """
        sent = [s for s in self.step.sent if s.stage == number]
        once = [(self._once(s), s.count) for s in sent if _of_cut_weights(s)]
        cut = [seconds for seconds, count in once for _ in range(count)]
        others = [s for s in sent if not _of_cut_weights(s)] if cut else []
        busy = sum(self._timed(each, 0.0).hidden_s for each in others)
        shown = prefetched(cut, max(0.0, self._computing(number) - busy)) / (sum(cut) or 1.0)
        shown = 1 - self.cluster.overlap * (1 - shown)
        return [self._timed(each, shown) for each in sent]

    def _timed(self, sent: Sent, shown: float) -> Timed:
        ranks, _ = self.step.group(sent.axis)
        once = self._once(sent)
        copied = _BUCKET_COPIED if is_bucket(sent.phase, sent.kind) else _COPIED[sent.kind](ranks)
        copies = copied * sent.input_bytes * sent.count / self.cluster.device.copy_rate
        if _of_cut_weights(sent):
            total = once * sent.count
            return Timed(sent, shown * total, (1 - shown) * total, copies)
        exposed, hidden = self._exposed(sent, once, ranks)
        hidden = max(hidden, 0.0)  # a difference of two sums may round below it
        shown = (1 - self.cluster.overlap) * hidden
        return Timed(sent, exposed + shown, hidden - shown, copies)

    def _once(self, sent: Sent, input_bytes: float | None = None) -> float:
        """Seconds of one of them, or of one like it with another size."""
        ranks, stride = self.step.group(sent.axis)
        at = {"ranks": ranks, "cluster": self.cluster, "stride": stride, "p": self.step.p}
        size = sent.input_bytes if input_bytes is None else input_bytes
        return collective_seconds(sent.kind, size, **at)

    def _computing(self, number: int | None) -> float:
        return self._stages[number]

    def _exposed(self, sent: Sent, once: float, ranks: int) -> tuple[float, float]:
        """What of equal collectives is exposed, and what is hidden [s]."""
        step = self.step
        if sent.kind == "ring_shift":
            phases = ("forward", "backward")
            behind = {phase: self.computed[sent.stage, phase, "attention"] for phase in phases}
            return round_the_ring(sent, once, ranks, step.spec.num_layers * step.accumulate, behind)
        if sent.phase == "gradients" and self.gradient_sync == "ddp":
            spent = self.computed.items()
            backward = sum(s for (_, phase, _), s in spent if phase == "backward")
            last = backward / step.accumulate  # of several backwards the last one sends
            buckets = [s for s in step.sent if is_bucket(s.phase, s.kind)]
            last *= sent.input_bytes / sum(s.input_bytes for s in buckets)  # each has its share
            return behind_the_backward(sent.input_bytes, partial(self._once, sent), last)
        if self.switch_chunks > 1 and step.cut_in_chunks(sent):
            chunk = self._once(sent, sent.input_bytes / self.switch_chunks)
            each = in_chunks(chunk, self.switch_chunks, self._mlp_s(sent.phase))
            return each[0] * sent.count, each[1] * sent.count
        return once * sent.count, 0.0

    def _mlp_s(self, phase: str) -> float:
        """Seconds of one MLP, which a switch may hide behind: its part of the flops."""
        spec = self.step.spec
        stages = range(len(spec.stages))
        matmul_s = sum(self.computed[stage, phase, "matmul"] for stage in stages)
        mlps = len(stages) if spec.mlp_per == "stage" else 1
        narrow = spec.kv_heads / spec.num_heads
        projections = len(stages) * (2 + 2 * narrow)  # in units of d_model ** 2 weights
        weights = 2 * mlps * spec.mlp_ratio
        times = spec.num_layers * self.step.accumulate * mlps
        return matmul_s * weights / (weights + projections) / times


def _of_cut_weights(sent: Sent) -> bool:
    """FSDP's gathers and scatters, which hide behind their stage's computing."""
    scatter = sent.phase == "gradients" and not is_bucket(sent.phase, sent.kind)
    return sent.phase == "weights" or scatter


def in_tiles(length: float, tile: float) -> float:
    """``length``, and what fills up the last tile of it.

    Examples
    --------
    >>> in_tiles(16, 128), in_tiles(129, 128)
    (128, 256)
    """
    return ceil(length / tile) * tile


def _of_whole_tiles(queries: float, keys: float, tile: float) -> float:
    """How many times the pairs that are needed are computed."""
    return in_tiles(queries, tile) / queries * in_tiles(keys, tile) / keys


def kernel_seconds(kernel: Kernel, device: Device) -> float:
    """One kernel by the roofline: the longer of its flops and of its bytes [s].

    An attention's queries take their time beside its flops, which are those of whole tiles.
    """
    flops, rows = kernel.flops, kernel.rows
    if kernel.kind != "attention":
        return max(flops / device.matmul_rate, kernel.bytes / device.memory_rate)
    if kernel.phase == "backward" and not kernel.redo:
        flops, rows = _BACKWARD_AGAIN * flops, 2 * _BACKWARD_AGAIN * rows
    if device.attention_tile and kernel.queries:
        flops *= _of_whole_tiles(kernel.queries, kernel.keys, device.attention_tile)
    computing = flops / device.attention_rate + rows * (device.attention_row_s or 0.0)
    return max(computing, kernel.bytes / device.memory_rate)
