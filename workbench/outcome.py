"""What came of a step: its log, and how far it is from one device."""

import statistics
from dataclasses import dataclass, field

import torch
from torch import Tensor

from workbench.collectives import Collective, Phase
from workbench.comm import Comm
from workbench.layout import put_shard
from workbench.rank import rank_step
from workbench.strategies import Strategy
from workbench.transformer import TransformerSpec


@dataclass(frozen=True)
class Step:
    """What one rank communicated in one training step.

    Attributes
    ----------
    strategy, p, dtype, shard : str, int, str, str or None
        What was run; ``shard`` is the dim that was cut before the first stage.
    log : list of Collective
        All collectives of rank 0 in order. Every rank's log is equal to it.
    """

    strategy: str
    p: int
    dtype: str
    shard: str | None
    log: list[Collective] = field(repr=False)

    def bytes_of(self, *phases: Phase) -> int:
        """Bytes that one rank sends in the given phases."""
        return sum(record.sent_bytes for record in self.log if record.phase in phases)

    @property
    def forward_bytes(self) -> int:
        """Bytes of activations that one rank sends in the forward pass."""
        return self.bytes_of("forward")

    @property
    def backward_bytes(self) -> int:
        """Bytes of activations' gradients that one rank sends in the backward pass."""
        return self.bytes_of("backward")

    @property
    def sent_bytes(self) -> int:
        """Forward and backward together; the weights' gradients are apart, as in the paper."""
        return self.bytes_of("forward", "backward")

    @property
    def gradient_bytes(self) -> int:
        """Bytes that one rank sends to sum the gradients of replicated weights."""
        return self.bytes_of("gradients")

    @property
    def weight_bytes(self) -> int:
        """Bytes that one rank sends to gather weights that FSDP has cut."""
        return self.bytes_of("weights")


@dataclass(frozen=True)
class FakedStep(Step):
    """A step of rank 0 on meta tensors: exact logs for any number of ranks, no values.

    Attributes
    ----------
    flops : int
        Matrix products and attention of rank 0. In a contiguous ring under a causal mask it has
        the least to do.
    peak_bytes : int
        Most bytes of tensors alive at once on one rank, weights and gradients included, without
        the optimizer's state and scratch memory inside kernels. A real rank may for a moment
        hold more: gloo lets go of a collective's buffers a little after it is done.
    """

    flops: int = 0
    peak_bytes: int = 0


@dataclass(frozen=True)
class RealStep(Step):
    """A step that ran on p ranks, against the same step on one device.

    Attributes
    ----------
    max_error, grad_error : float
        Largest absolute difference from one device, over the largest absolute value of its
        output, and of all its gradients.
    seconds : float
        One step of the slowest rank [s]; the median, if it was repeated.
    launch_seconds : float
        All else: starting the ranks, making weights, collecting results [s].
    loss : float
        Mean square of the output: a stand-in that gives every weight a gradient.
    output : Tensor
        The whole output, put together from the ranks' parts.
    gradients : dict of str to Tensor
        Whole gradients of all weights by name, and of the input as ``"input"``.
    """

    max_error: float = 0.0
    grad_error: float = 0.0
    seconds: float = 0.0
    launch_seconds: float = 0.0
    loss: float = 0.0
    output: Tensor = field(default=None, repr=False)
    gradients: dict[str, Tensor] = field(default_factory=dict, repr=False)


def compare(
    ranks: list[dict], spec: TransformerSpec, cls: type[Strategy], options: dict, wall_s: float
) -> RealStep:
    """Put the ranks' parts together and hold them against one device."""
    p = len(ranks)
    assert all(r["log"] == ranks[0]["log"] for r in ranks), "the ranks' logs differ"
    dtype, seed, shard = options["dtype"], options["seed"], options["shard"]
    one = rank_step(Comm(1), spec, Strategy, dtype, seed)
    whole = _join(ranks, [r["output"] for r in ranks], "layout")
    gradients = {name: _join_gradient(name, ranks, cls) for name in ranks[0]["gradients"]}
    seconds = [max(times) for times in zip(*(r["seconds"] for r in ranks), strict=True)]
    return RealStep(
        cls.name, p, dtype, shard, ranks[0]["log"],
        max_error=_error({"output": whole}, {"output": one["output"]}),
        grad_error=_error(gradients, one["gradients"]),
        seconds=statistics.median(seconds),
        launch_seconds=wall_s - sum(seconds),
        loss=sum(r["loss"] for r in ranks if r["layout"].layout.split or r["part"] == 0),
        output=whole,
        gradients=gradients,
    )  # fmt: skip


def _join(ranks: list[dict], parts: list[Tensor], key: str) -> Tensor:
    """The whole tensor of which each rank has a part, as ``rank[key]`` says."""
    first = ranks[0][key].layout
    if first.split is None and not first.outer:
        return parts[0]  # each rank has all of it
    whole = parts[0].new_zeros(tuple(first.sizes.values()))
    for rank, part in zip(ranks, parts, strict=True):
        put_shard(whole, part, *rank[key])
    return whole


def _join_gradient(name: str, ranks: list[dict], cls: type[Strategy]) -> Tensor:
    parts = [rank["gradients"][name] for rank in ranks]
    if name == "input":
        return _join(ranks, parts, "start")
    dim = cls.cut_dim(name)
    if dim is None:
        return parts[0]
    return torch.cat([r["gradients"][name] for r in ranks if r["data"] == 0], dim)


def _error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Largest absolute difference over the largest absolute value, of all tensors together."""
    largest = max(t.abs().max().item() for t in expected.values())
    worst = [(found[name].double() - t.double()).abs().max() for name, t in expected.items()]
    return torch.stack(worst).max().item() / largest  # NaN stays NaN
