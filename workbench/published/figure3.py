"""The paper's training throughput (v1, Fig. 3) from the cost model: DSP and Ulysses on H800.

Three numbers are fitted, each with a physical meaning and below what the hardware can do; all else
is as for any other prediction. `benchmarks/figure3.py` fits them and cross-validates.

What the bars teach: Ulysses takes longer than DSP by nearly the same time on 2, 4 and 8 GPUs. An
all-to-all of 1/p of the stream cannot do that, whatever the bandwidth. A part that moves the whole
stream to every rank can: in proportion to (p-1)/p rather than (p-1)/p^2 it grows as the other
shrinks. One gather of the stream for each attention and pass explains the bars; that the authors'
program makes it is our inference (grade I), for they have not published that program.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from workbench.cluster import CLUSTERS, Cluster, Figure, Link
from workbench.cost import Cost, predict
from workbench.dims import check_count
from workbench.transformer import PRESETS, TransformerSpec
from workbench.units import GB, TFLOP_PER_S
from workbench.wire import collective_seconds

Method = Literal["dsp", "ulysses"]
_FITTED = "least squares on the 12 public bars of arXiv:2403.10266v1, Fig. 3"


class Bar(NamedTuple):
    """One bar: throughput of a sequence-parallel group [samples/s], read off the figure +-0.004."""

    temporal_length: int
    spatial_length: int
    sp: int
    method: Method
    samples_per_s: float

    @property
    def asked(self) -> dict:
        """The bar's place in the figure: the arguments of `fig3_throughput`."""
        return {name: value for name, value in self._asdict().items() if name != "samples_per_s"}


#: Source: arXiv:2403.10266v1, Fig. 3, digitised (grade A-dig).
BARS: tuple[Bar, ...] = tuple(
    Bar(temporal, 4096, sp, method, value)
    for temporal, sp, *both in (
        (64, 2, 0.69, 0.98), (64, 4, 0.93, 1.56), (64, 8, 1.15, 2.03),
        (128, 2, 0.36, 0.55), (128, 4, 0.50, 0.95), (128, 8, 0.67, 1.44),
    )
    for method, value in zip(("ulysses", "dsp"), both, strict=True)
)  # fmt: skip
#: Latent positions in a token: the model cuts each frame into patches of 2 x 2.
#: Source: STDiT-XL/2's name; that the figure counts positions is inferred (read as tokens it would
#: need 661 to 827 TFLOP/s of a GPU).
_PER_TOKEN = 4


@dataclass(frozen=True)
class Fitted:
    """What the bars say of the program and its machine.

    Attributes
    ----------
    matmul_flops_per_s : float
        What its matrix products reach, and all that we don't count: cross-attention, modulation.
    bandwidth_bytes_per_s : float
        What its collectives reach; an H800's NVLink has been seen to reach 160 GB/s.
    step_overhead_s : float
        What a step costs besides: launches, optimizer, moving average of the weights, logging.
    """

    matmul_flops_per_s: float
    bandwidth_bytes_per_s: float
    step_overhead_s: float


#: Source: fitted on the 12 public bars by benchmarks/figure3.py, which prints them.
FITTED = Fitted(289.64 * TFLOP_PER_S, 104.4 * GB, 0.2349)
#: Channels of a head, and what FlashAttention 2 computes for them.
#: Source: Dao-AILab/flash-attention compiles kernels for heads of 32, 64, 96, 128, ... channels.
_HEAD, _PADDED = 72, 96


def fitted_cluster(fitted: Fitted) -> Cluster:
    """A box of eight H800 as the bars say it is."""
    box = CLUSTERS["hgx-h800"]
    sheet = box.device.attention_rate
    device = replace(
        box.device,
        matmul_flops_per_s=Figure(fitted.matmul_flops_per_s, "fitted", _FITTED),
        attention_flops_per_s=Figure(
            sheet * _HEAD / _PADDED, "derived", "an H100's, where heads of 72 run as of 96"
        ),
    )
    rate = Figure(fitted.bandwidth_bytes_per_s, "fitted", _FITTED)
    wire = box.intra
    return replace(
        box,
        name="hgx-h800, as Fig. 3 has it",
        device=device,
        intra=Link(wire.name, rate, wire.alpha_s, wire.step_s, wire.message_s),
        step_overhead_s=Figure(fitted.step_overhead_s, "fitted", _FITTED),
    )


#: The machine of the figure.
H800 = fitted_cluster(FITTED)


def fig3_throughput(
    *, temporal_length: int, spatial_length: int, sp: int, method: str, cluster: Cluster = H800
) -> float:
    """Training throughput of one sequence-parallel group of STDiT-XL/2 [samples/s].

    Parameters
    ----------
    temporal_length : int
        Frames after the autoencoder.
    spatial_length : int
        Latent positions of a frame, four to a token.
    sp : int
        GPUs of the group.
    method : {"dsp", "ulysses"}
        Ulysses communicates in both blocks, as in v1 to v4 of the paper.
    cluster : Cluster
        Other than the fitted one, to ask what would change.

    Raises
    ------
    ValueError
        If the method is another, a length no multiple of a token, or the method can't run it.

    Examples
    --------
    >>> ours = fig3_throughput(temporal_length=64, spatial_length=4096, sp=8, method="dsp")
    >>> round(ours / 2.03, 1)  # the bar says 2.03
    1.0
    """
    for name, value in (("temporal_length", temporal_length), ("spatial_length", spatial_length)):
        check_count(name, value)
    if spatial_length % _PER_TOKEN:
        raise ValueError(
            f"spatial_length counts latent positions, {_PER_TOKEN} to a token; {spatial_length} is "
            f"no multiple of {_PER_TOKEN}"
        )
    dims = {"time": temporal_length, "space": spatial_length // _PER_TOKEN}
    spec = replace(PRESETS["stdit-xl-2"], dims=dims)
    return spec.batch / step_seconds(spec, method, sp, cluster, checkpoint="block")


def step_seconds(spec: TransformerSpec, method: str, p: int, cluster: Cluster, **options) -> float:
    """Seconds of a step of the authors' programs: Ulysses' with what `predict` leaves out of it."""
    if method not in ("dsp", "ulysses"):
        raise ValueError(f"method must be 'dsp' or 'ulysses', got {method!r}")
    given = {"gradient_sync": "flat", **options}
    cost = predict(spec, method, cluster, p=p, shard=next(iter(spec.dims)), **given)
    if method == "dsp" or p == 1:
        return cost.seconds
    return cost.seconds + other_block_s(cost) + gathers_s(spec, cost, cluster, options)


def other_block_s(cost: Cost) -> float:
    """Exchanges in the block that attends along another dim than the cut one, as in the first."""
    return sum(stage.exposed_communication_s + stage.relayout_s for stage in cost.breakdown[:-1])


def gathers_s(spec: TransformerSpec, cost: Cost, cluster: Cluster, options) -> float:
    """One gather of the whole stream for each attention of each pass, and joining its parts."""
    passes = 1 if cost.mode == "inference" else 3 + (options.get("checkpoint") == "block")
    whole = spec.activation_bytes("bfloat16")
    wire = collective_seconds("all_gather", whole / cost.p, cost.p, cluster)
    joined = 2 * whole / cluster.device.memory_rate
    return passes * spec.num_layers * len(spec.stages) * (wire + joined)


def errors(bars: Sequence[Bar], cluster: Cluster = H800) -> list[float]:
    """Our throughput over the figure's, less 1, of each bar."""
    return [fig3_throughput(**bar.asked, cluster=cluster) / bar.samples_per_s - 1 for bar in bars]
