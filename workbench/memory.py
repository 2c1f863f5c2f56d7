"""What one rank holds at the moment when it holds most, by kind; from a faked step."""

import weakref
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.closed_form import prepared
from workbench.launch import run_fake
from workbench.meter import Meter
from workbench.outcome import FakedStep
from workbench.rank import RankStep
from workbench.strategies import Strategy
from workbench.transformer import TransformerSpec

#: Weights; their gradients so far; the bucket in which gradients travel; all else: what the
#: forward keeps for the backward, and what is being computed.
KINDS = ("weights", "gradients", "bucket", "activations")


@dataclass(frozen=True)
class AtPeak:
    """A step of rank 0, and what made up its peak.

    Attributes
    ----------
    step : FakedStep
        What `fake_step` returns for the same arguments.
    held : dict of str to int
        Bytes by kind, one of `KINDS`; together they are ``step.peak_bytes``.
    """

    step: FakedStep
    held: Mapping[str, int]


def at_peak(
    spec: TransformerSpec,
    strategy: str | type[Strategy],
    *,
    p: int,
    dtype: str = "float32",
    shard: str | None = None,
    mesh: Mapping[str, int] | None = None,
    checkpoint: str = "none",
    switch: str = "inside",
    accumulate: int = 1,
    **options,
) -> AtPeak:
    """Fake a step and say what is alive at its peak; the arguments are those of `fake_step`.

    Examples
    --------
    >>> from workbench.transformer import PRESETS
    >>> found = at_peak(PRESETS["toy-video"], "dsp", p=4)
    >>> found.held["weights"] == 4 * PRESETS["toy-video"].parameters
    True
    """
    memory = {"checkpoint": checkpoint, "switch": switch, "accumulate": accumulate, "fsdp": False}
    cls, shard = prepared(spec, strategy, p, dtype, shard, mesh, memory, options)

    def on_rank(rank, comm):
        step = _Watched(comm, spec, cls, dtype, 0, shard, torch.device("meta"), mesh, **memory)
        with _Kinds(step) as meter:
            step.meter = meter
            step.run()
        faked = FakedStep(cls.name, p, dtype, shard, comm.log, meter.flops, meter.peak_bytes)
        return AtPeak(faked, {kind: meter.at_peak[kind] for kind in KINDS})

    return run_fake(on_rank, p)


class _Watched(RankStep):
    """A step that tells its meter when the sum of gradients begins."""

    meter: "_Kinds"

    def _sum_gradients(self) -> None:
        self.meter.kind = "bucket"
        super()._sum_gradients()


class _Kinds(Meter):
    """A meter that knows of what kind each storage is."""

    def __init__(self, step: RankStep):
        self.kind, self.live, self.at_peak = "weights", Counter(), Counter()
        self._kind_of: dict[int, str] = {}
        weights = [weight for _, weight in step.model.named_weights()]
        super().__init__(weights)
        self.kind = "activations"
        self._see(step.x.untyped_storage())
        # Hooks live as long as the weights; they must not keep the meter alive.
        here = weakref.ref(self)
        for weight in weights:
            weight.register_post_accumulate_grad_hook(lambda w: here()._is_gradient(w.grad))

    def _see(self, storage: torch.UntypedStorage) -> None:
        before = self.live_bytes
        peak = self.peak_bytes
        super()._see(storage)
        if self.live_bytes > before:
            self._kind_of[storage._cdata] = self.kind
            self.live[self.kind] += self.live_bytes - before
        if self.peak_bytes > peak:
            self.at_peak = self.live.copy()

    def _is_gradient(self, gradient: Tensor) -> None:
        storage = gradient.untyped_storage()
        self._see(storage)
        key, size = storage._cdata, storage.nbytes()
        self.live[self._kind_of[key]] -= size
        self._kind_of[key] = "gradients"
        self.live["gradients"] += size

    def _gone(self, key: int, size: int) -> None:
        super()._gone(key, size)
        self.live[self._kind_of.pop(key)] -= size
