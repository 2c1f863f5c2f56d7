"""Seconds of one step on a cluster: what computes, what communicates, and what hides behind what.

    seconds = compute_s + exposed_communication_s + relayout_s + overhead_s

Kernels take the longer of their flops and of their bytes (a roofline); collectives take alpha and
beta, by algorithm and by where their ranks are. Two things hide: a ring's transfers behind the
blocks that it computes meanwhile, and buckets of weights' gradients behind the backward. If asked,
DSP's switches do, too: in chunks, behind the MLP before them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial

from workbench.closed_form import prepared
from workbench.cluster import Cluster
from workbench.dims import check_count
from workbench.footprint.budget import rank_memory
from workbench.slope import counted
from workbench.strategies import Strategy, by_name
from workbench.timing import StageCost, StepCounts, timed
from workbench.traffic import known, own_axis, traffic
from workbench.transformer import TransformerSpec
from workbench.work import kernels

#: What a step is predicted for.
MODES = ("train", "inference")


@dataclass(frozen=True)
class Cost:
    """What a step is predicted to take on a cluster.

    Attributes
    ----------
    strategy, cluster, p, mode : str, str, int, str
        What was asked for.
    compute_s : float
        Matrix products, attention and elementwise kernels of the busiest rank [s].
    exposed_communication_s, hidden_communication_s : float
        What collectives take while nothing is computed, and while something is [s].
    relayout_s : float
        Local copies before and after collectives [s].
    overhead_s : float
        Launches of kernels and collectives, and what a step costs whatever its size [s].
    samples_per_s, tokens_per_s : float
        Of all ranks together.
    mfu : float
        Flops of the model over what all devices could do at their peak meanwhile.
    breakdown : tuple of StageCost
        By stage; the weights' gradients come last. Overhead belongs to none.
    matmul_s, attention_s, elementwise_s : float
        Parts of ``compute_s``.
    memory_bound_s : float
        The part of ``compute_s`` of kernels that wait for memory rather than compute [s].
    inter_node_s : float
        The part of all communication whose group spans nodes [s].
    memory_of : callable
        Works out ``memory_bytes`` and ``memory_exact``, which take longer than all else.
    """

    strategy: str
    cluster: str
    p: int
    mode: str
    compute_s: float
    exposed_communication_s: float
    hidden_communication_s: float
    relayout_s: float
    overhead_s: float
    samples_per_s: float
    tokens_per_s: float
    mfu: float
    breakdown: tuple[StageCost, ...] = field(repr=False)
    matmul_s: float = 0.0
    attention_s: float = 0.0
    elementwise_s: float = 0.0
    memory_bound_s: float = 0.0
    inter_node_s: float = 0.0
    memory_of: Callable[[], tuple[int, bool]] | None = field(
        default=None, repr=False, compare=False
    )

    @cached_property
    def _memory(self) -> tuple[int, bool]:
        return self.memory_of()

    @property
    def memory_bytes(self) -> int:
        """Peak of a rank with AdamW's state, in inference of a forward; worked out when asked."""
        return self._memory[0]

    @property
    def memory_exact(self) -> bool:
        """Whether that is to the byte of live tensors, or an estimate."""
        return self._memory[1]

    @property
    def seconds(self) -> float:
        """One step [s]."""
        shown = self.compute_s + self.exposed_communication_s
        return shown + self.relayout_s + self.overhead_s

    @property
    def communication_s(self) -> float:
        """All that collectives take, hidden or not [s]."""
        return self.exposed_communication_s + self.hidden_communication_s


def predict(
    spec: TransformerSpec,
    strategy: str | type[Strategy],
    cluster: Cluster,
    *,
    p: int,
    dtype: str = "bfloat16",
    mode: str = "train",
    gradient_sync: str | None = None,
    switch_chunks: int = 1,
    shard: str | None = None,
    mesh: Mapping[str, int] | None = None,
    checkpoint: str = "none",
    switch: str = "inside",
    accumulate: int = 1,
    fsdp: bool | str = False,
    **options,
) -> Cost:
    """Predict how long one step takes on ``p`` ranks of a cluster.

    Parameters
    ----------
    spec, strategy, p, dtype, shard, mesh, checkpoint, switch, accumulate, fsdp, **options
        As for `fake_step`; of a mesh the last axis has neighbouring ranks.
    cluster : Cluster
        Such as ``wb.CLUSTERS["dgx-h100"]``. Ranks fill one node after another.
    mode : {"train", "inference"}
        Forward, backward and sum of gradients; or one forward.
    gradient_sync : {"flat", "ddp"} or None
        All gradients in one bucket after the backward, or in buckets of 25 MB behind it.
        ``None``: as the cluster has it; presets ``"ddp"``.
    switch_chunks : int
        Into how many chunks DSP cuts a switch, each sent while the MLP computes the next. More
        than 1 asks what asynchronous switching would gain: the strategy here sends all at once.

    Returns
    -------
    Cost
        ``.seconds`` and its parts, throughput, ``.memory_bytes``.

    Raises
    ------
    ValueError
        If the strategy can't run this, or the cluster has fewer devices.

    Notes
    -----
    A device's rates are taken for every dtype: presets have those of bfloat16, `calibrate` measures
    one dtype; of another only the bytes change. Left out: the optimizer (unless in the cluster's
    ``step_overhead_s``), embeddings and loss, positions, stragglers, contention among groups, and
    whatever a compiler would fuse.

    Examples
    --------
    >>> from workbench.cluster import CLUSTERS
    >>> from workbench.transformer import PRESETS
    >>> cost = predict(PRESETS["stdit-xl-2"], "dsp", CLUSTERS["dgx-h100"], p=8)
    >>> parts = cost.compute_s, cost.exposed_communication_s, cost.relayout_s, cost.overhead_s
    >>> cost.seconds == sum(parts), cost.samples_per_s * cost.seconds
    (True, 1.0)
    """
    if not isinstance(cluster, Cluster):
        raise ValueError(f"a Cluster is needed, such as CLUSTERS['dgx-h100']; got {cluster!r}")
    sync = cluster.summing(gradient_sync)
    check_chunks(strategy, switch_chunks, options.get("around"))
    how = {"p": p, "dtype": dtype, "mode": mode, "shard": shard, "mesh": mesh,
           "checkpoint": checkpoint, "switch": switch, "accumulate": accumulate, "fsdp": fsdp,
           **options}  # fmt: skip
    step = step_counts(spec, strategy, cluster, **how)
    memory_of = partial(rank_memory, spec, strategy, **how)
    return _cost(step, cluster.working(p), sync, mode, switch_chunks, memory_of)


def check_chunks(
    strategy: str | type[Strategy], switch_chunks: int, around: str | None = None
) -> None:
    """Raise ValueError unless the strategy's switches can be cut into so many chunks."""
    check_count("switch_chunks", switch_chunks)
    cls = by_name(strategy)
    around = around or getattr(cls, "around", "residual")
    if switch_chunks > 1 and (cls.name != "dsp" or around == "attention"):
        raise ValueError(
            f"switch_chunks={switch_chunks} with {cls.name!r}: above 1 of 'dsp' alone, around the "
            "residual stream, whose switches an MLP comes before; take 1."
        )


def step_counts(
    spec: TransformerSpec,
    strategy: str | type[Strategy],
    cluster: Cluster,
    *,
    p: int,
    dtype: str = "bfloat16",
    mode: str = "train",
    shard: str | None = None,
    mesh: Mapping[str, int] | None = None,
    checkpoint: str = "none",
    switch: str = "inside",
    accumulate: int = 1,
    fsdp: bool | str = False,
    **options,
) -> StepCounts:
    """What one rank computes and sends in the step of `predict`, and so takes its arguments.

    Raises
    ------
    ValueError
        As `predict`.

    Examples
    --------
    >>> from workbench.cluster import CLUSTERS
    >>> from workbench.transformer import PRESETS
    >>> step = step_counts(PRESETS["toy-video"], "dsp", CLUSTERS["dgx-h100"], p=4)
    >>> sum(s.count for s in step.sent if s.phase == "forward")  # switches in 2 layers of 2 stages
    3
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}; got {mode!r}")
    memory = {"checkpoint": checkpoint, "switch": switch, "accumulate": accumulate, "fsdp": fsdp}
    given = (spec, strategy, p, dtype, shard, _frozen(mesh), tuple(memory.items()),
             tuple(options.items()))  # fmt: skip
    try:
        step = _step(*given)
    except TypeError:  # what cannot be hashed is no value that is known; this says which are
        step = _step.__wrapped__(*given)
    cluster.check_ranks(p)
    return step.forward() if mode == "inference" else step


def _frozen(mesh: Mapping[str, int] | None) -> tuple[tuple[str, int], ...] | None:
    if mesh is not None and not isinstance(mesh, Mapping):
        raise ValueError(f"a mesh is a dict of axis -> ranks, got {mesh!r}")
    return None if mesh is None else tuple(mesh.items())


# Pure: a step's counts depend on nothing but these arguments, so that a second cluster costs less.
@lru_cache(maxsize=512)
def _step(spec, strategy, p, dtype, shard, mesh, memory, options) -> "StepCounts":
    mesh, memory, options = mesh and dict(mesh), dict(memory), dict(options)
    cls, shard = prepared(spec, strategy, p, dtype, shard, mesh, memory, options)
    given = {"p": p, "dtype": dtype, "shard": shard, "mesh": mesh}
    if not known(cls):
        sent, done = counted(spec, cls, {**given, **memory})
    else:
        sent = traffic(spec, cls, **given, **memory)
        done = kernels(spec, cls, **given, checkpoint=memory["checkpoint"],
                       accumulate=memory["accumulate"])  # fmt: skip
    sizes = dict(mesh) if mesh else {own_axis(cls, mesh): p}
    return StepCounts(spec, cls.name, p, dtype, sizes, memory["accumulate"],
                      tuple(done), tuple(sent))  # fmt: skip


def _cost(
    step: StepCounts,
    cluster: Cluster,
    gradient_sync: str,
    mode: str,
    switch_chunks: int,
    memory_of: Callable[[], tuple[int, bool]],
) -> Cost:
    stages, sums = timed(step, cluster, gradient_sync, switch_chunks)
    names = ("compute_s", "exposed_communication_s", "relayout_s", "hidden_communication_s")
    totals = {name: sum(getattr(stage, name) for stage in stages) for name in names}
    launches = step.launches + step.launches_of_chunks(switch_chunks)
    overhead = launches * cluster.device.launch_s + cluster.step_overhead_s
    # In the order of Cost.seconds, so that both are equal to the last bit.
    seconds = totals["compute_s"] + totals["exposed_communication_s"] + totals["relayout_s"]
    seconds += overhead
    spec = step.spec
    flops = spec.flops if mode == "train" else spec.forward_flops
    return Cost(
        step.strategy, cluster.name, step.p, mode, **totals, overhead_s=overhead,
        samples_per_s=spec.batch / seconds, tokens_per_s=spec.batch * spec.tokens / seconds,
        mfu=flops / (seconds * step.p * cluster.device.peak_flops_per_s),
        breakdown=tuple(stages), **sums, memory_of=memory_of,
    )  # fmt: skip
