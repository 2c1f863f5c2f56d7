"""What a machine is made of: devices, the links between them, and nodes of both."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf
from numbers import Real

from workbench.dims import check_count

#: Ways to sum gradients: in one bucket after the backward, or in buckets behind it.
SYNCS = ("flat", "ddp")
ALL_TO_ALLS = ("flat", "hierarchical", "best")


@dataclass(frozen=True)
class Device:
    """One accelerator, or one process of a CPU.

    Parameters
    ----------
    name : str
        As its maker calls it.
    memory_bytes : int
        Size of its memory [bytes].
    peak_flops_per_s : float
        Dense bfloat16 matrix products, as the data sheet has it [flop/s]. No program reaches it.
    source : str
        Where the two numbers above are from.
    matmul_flops_per_s, attention_flops_per_s : float or None
        What large matrix products and fused attention reach [flop/s]. ``None``: the peak, of
        which attention gets a third, as on an H100.
    memory_bytes_per_s : float or None
        What elementwise kernels and copies reach, reads and writes together [bytes/s].
        ``None``: so fast that they cost nothing.
    copy_bytes_per_s : float or None
        What the copies around a collective reach, if it is known apart [bytes/s].
    launch_s : float
        Time from one small kernel to the next [s].
    attention_row_s : float or None
        What each query of each head takes besides its flops [s], if known; backward 2.5 times that.
    attention_tile : float or None
        Queries, and keys, of a tile: fused attention computes whole ones, of an attention without
        a mask. ``None``: not known.
    """

    name: str
    memory_bytes: int
    peak_flops_per_s: float
    source: str = ""
    matmul_flops_per_s: float | None = None
    attention_flops_per_s: float | None = None
    memory_bytes_per_s: float | None = None
    launch_s: float = 0.0
    copy_bytes_per_s: float | None = None
    attention_row_s: float | None = None
    attention_tile: float | None = None

    def __post_init__(self):
        for name in ("memory_bytes", "peak_flops_per_s"):
            _check_positive(f"{name} of {self.name}", getattr(self, name))
        for name in (
            "matmul_flops_per_s", "attention_flops_per_s", "memory_bytes_per_s", "copy_bytes_per_s",
            "attention_tile",
        ):  # fmt: skip
            if getattr(self, name) is not None:
                _check_positive(f"{name} of {self.name}", getattr(self, name))
        for name in ("launch_s", "attention_row_s"):
            if getattr(self, name) is not None:
                _check_seconds(f"{name} of {self.name}", getattr(self, name))

    @property
    def matmul_rate(self) -> float:
        """What matrix products reach [flop/s]."""
        return self.matmul_flops_per_s or self.peak_flops_per_s

    @property
    def attention_rate(self) -> float:
        """What fused attention reaches [flop/s]."""
        return self.attention_flops_per_s or self.peak_flops_per_s / 3

    @property
    def memory_rate(self) -> float:
        """What elementwise kernels reach [bytes/s]."""
        return self.memory_bytes_per_s or float("inf")

    @property
    def copy_rate(self) -> float:
        """What the copies around a collective reach [bytes/s]."""
        return self.copy_bytes_per_s or self.memory_rate


@dataclass(frozen=True)
class Link:
    """What joins ranks: alpha and beta of collectives over it.

    Parameters
    ----------
    name : str
        Such as ``"NVLink 4"``.
    bandwidth_bytes_per_s : float or mapping of str to float
        What one rank can send and receive at the same time [bytes/s]; of every kind of
        collective, or by kind, with ``"*"`` for the others.
    alpha_s : float or mapping of str to float
        Latency of a collective, whatever its size [s]; by kind, if it differs, with ``"*"``.
    step_s : float
        Latency of each step of a ring, or level of a tree [s].
    message_s : float
        Latency of each further peer of an all-to-all [s].
    """

    name: str
    bandwidth_bytes_per_s: float | Mapping[str, float]
    alpha_s: float | Mapping[str, float] = 0.0
    step_s: float = 0.0
    message_s: float = 0.0

    def __post_init__(self):
        for kind, rate in self.rates.items():
            _check_positive(f"bandwidth of {self.name} for {kind!r}", rate)
        for kind, alpha in self.alphas.items():
            _check_seconds(f"alpha_s for {kind!r} of {self.name}", alpha)
        for name in ("step_s", "message_s"):
            _check_seconds(f"{name} of {self.name}", getattr(self, name))
        for what, by_kind in (("bandwidths", self.rates), ("latencies", self.alphas)):
            if "*" not in by_kind:
                raise ValueError(
                    f"{what} of {self.name} by kind need '*' for the kinds that are not named; "
                    f"got {list(by_kind)}"
                )

    @property
    def rates(self) -> Mapping[str, float]:
        """Bandwidths by kind of collective; ``"*"`` stands for the others [bytes/s]."""
        given = self.bandwidth_bytes_per_s
        return given if isinstance(given, Mapping) else {"*": given}

    @property
    def alphas(self) -> Mapping[str, float]:
        """Latencies by kind of collective; ``"*"`` stands for the others [s]."""
        return self.alpha_s if isinstance(self.alpha_s, Mapping) else {"*": self.alpha_s}

    def alpha(self, kind: str) -> float:
        """Latency of a collective of this kind [s]."""
        return self.alphas.get(kind, self.alphas["*"])

    def bandwidth(self, kind: str) -> float:
        """What one rank sends in a collective of this kind [bytes/s]."""
        return self.rates.get(kind, self.rates["*"])


@dataclass(frozen=True)
class Cluster:
    """Nodes of devices.

    Parameters
    ----------
    name : str
        What it is called.
    device : Device
        All its devices are of this kind.
    gpus_per_node : int
        Devices in a node; ranks fill one node after another.
    intra : Link
        Between the devices of a node.
    nodes : int
        How many there are.
    inter : Link or None
        One network interface of a node. ``None``: nodes cannot be joined. A collective within and
        between nodes takes the longer of both links' ``alpha_s``.
    nics_per_node : int or None
        Network interfaces of a node; ``None``: one for each device.
    oversubscription : float
        How many times more the nodes can send than the network between them carries.
    step_overhead_s : float
        What a step costs besides, whatever its size [s]: data, optimizer, logging.
    notes : str
        What is not known of it.
    overlap : float
        How much of a transfer that could hide behind computing does: 1 where something else than
        the computing cores moves the bytes, 0 where it is they.
    alone : Device or None
        What a device reaches while no other works, where they share something, such as the cores
        of a CPU its memory. ``None``: the same as ``device``.
    all_to_all : {"flat", "hierarchical", "best"}
        How an all-to-all goes across nodes: each rank to each other; first within the nodes, so
        that each rank then only sends to those of its place in the other nodes; or whichever of
        the two takes less. Where nodes hold unequal numbers of its ranks it is flat.
    gradient_sync : {"ddp", "flat"}
        How `predict` sums gradients unless it is told. A calibrated machine has ``"flat"``, which
        is what `run_step` does.

    Raises
    ------
    ValueError
        If a number cannot be.

    Examples
    --------
    >>> mine = Cluster("two boxes", Device("ours", 24 * 10**9, 1e14), gpus_per_node=4,
    ...                intra=Link("PCIe", 20e9, alpha_s=1e-5), nodes=2,
    ...                inter=Link("100 Gbit/s", 12.5e9, alpha_s=2e-5), nics_per_node=1)
    >>> mine.gpus, mine.nic_bytes_per_s
    (8, 3125000000.0)
    """

    name: str
    device: Device
    gpus_per_node: int
    intra: Link
    nodes: int = 1
    inter: Link | None = None
    nics_per_node: int | None = None
    oversubscription: float = 1.0
    step_overhead_s: float = 0.0
    notes: str = field(default="", compare=False)
    overlap: float = 1.0
    alone: Device | None = None
    gradient_sync: str = "ddp"
    all_to_all: str = "flat"

    def __post_init__(self):
        of = f"of cluster {self.name!r}"
        for name, kind in (("device", Device), ("intra", Link), ("inter", Link), ("alone", Device)):
            value = getattr(self, name)
            if not isinstance(value, kind) and (value is not None or name in ("device", "intra")):
                raise ValueError(f"{name} {of} must be a {kind.__name__}, got {value!r}")
        for name, known in (("gradient_sync", SYNCS), ("all_to_all", ALL_TO_ALLS)):
            if (given := getattr(self, name)) not in known:
                raise ValueError(f"{name} {of} must be one of {known}; got {given!r}")
        for name in ("gpus_per_node", "nodes"):
            check_count(f"{name} {of}", getattr(self, name))
        if self.nics_per_node is not None:
            check_count(f"nics_per_node {of}", self.nics_per_node)
        _check_seconds(f"step_overhead_s {of}", self.step_overhead_s)
        _check_positive(f"oversubscription {of}", self.oversubscription)
        if not 1 <= self.oversubscription < inf:
            raise ValueError(
                f"oversubscription {of} must be at least 1 (1 is a network that carries all that "
                f"the nodes can send); got {self.oversubscription}"
            )
        if not (_is_number(self.overlap) and 0 <= self.overlap <= 1):
            raise ValueError(f"overlap {of} is a share, from 0 to 1; got {self.overlap}")
        if self.nodes > 1 and self.inter is None:
            raise ValueError(f"{self.nodes} nodes {of} are joined by no inter= link")

    @property
    def gpus(self) -> int:
        """Devices of all nodes."""
        return self.nodes * self.gpus_per_node

    @property
    def nic_bytes_per_s(self) -> float | None:
        """A device's share of its node's network interfaces [bytes/s]."""
        return None if self.inter is None else self.network_bytes_per_s("*")

    def network_bytes_per_s(self, kind: str, crossing: int | None = None) -> float:
        """The same in a collective of this kind, if nodes are joined [bytes/s].

        ``crossing``: so many of a node's ranks send at once; by default all. Each has its own
        interfaces for itself, or shares those that there are.
        """
        cards = self.nics_per_node or self.gpus_per_node
        each = min(max(1.0, cards / self.gpus_per_node), cards / (crossing or self.gpus_per_node))
        return float(self.inter.bandwidth(kind)) * each / self.oversubscription

    def working(self, p: int) -> "Cluster":
        """The same cluster, its device as it is while ``p`` ranks work."""
        return replace(self, device=self.alone) if p == 1 and self.alone is not None else self

    def summing(self, gradient_sync: str | None) -> str:
        """How gradients are summed: as asked, or else as is usual here."""
        if gradient_sync not in (None, *SYNCS):
            known = ", ".join(SYNCS)
            raise ValueError(f"gradient_sync must be one of {known}; got {gradient_sync!r}")
        return gradient_sync or self.gradient_sync

    def check_ranks(self, p: int) -> None:
        """Raise ValueError if there are fewer than ``p`` devices, or ``p`` is no count."""
        check_count("p (the number of ranks)", p)
        if p > self.gpus:
            known = f" ({self.notes})" if self.notes else ""
            raise ValueError(
                f"p={p} ranks do not fit cluster {self.name!r} of {self.nodes} x "
                f"{self.gpus_per_node} = {self.gpus} devices{known}; take a smaller p, or give it "
                "more nodes by dataclasses.replace(cluster, nodes=..., inter=Link(...))"
            )


def _check_positive(name: str, value: object) -> None:
    if not (_is_number(value) and value > 0):
        raise ValueError(f"{name} must be a positive number, got {value!r}")


def _check_seconds(name: str, value: object) -> None:
    if not (_is_number(value) and 0 <= value < inf):
        raise ValueError(f"{name} must be a number of seconds, 0 or more, got {value!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
