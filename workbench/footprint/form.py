"""Peak memory of a step in closed form, and what it is made of."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from workbench.closed_form import prepared
from workbench.footprint.ledger import NotCovered, Stretch
from workbench.footprint.sharded import FSDP
from workbench.footprint.step import StepForm
from workbench.strategies import Strategy
from workbench.transformer import TransformerSpec

#: What is alive is of one of these kinds. ``buffers`` are what collectives and rings send and
#: receive; ``activations`` all else that the step computes, the input and its gradient among it.
KINDS = ("weights", "gradients", "optimizer", "bucket", "buffers", "activations")
_KIND_OF = {
    "weights": "weights", "gradients": "gradients", "optimizer": "optimizer", "bucket": "bucket",
    "padded": "buffers", "sent": "buffers", "received": "buffers", "travelling": "buffers",
    "travelling gradients": "buffers", "gathered": "buffers", "whole weights": "weights",
}  # fmt: skip
#: Tensors of weights' size that an optimizer keeps, and bytes of its counter for each weight.
#: Source: torch 2.13's `torch.optim.SGD` without momentum and `AdamW` as they are by default.
_OPTIMIZERS = {None: (0, 0), "sgd": (0, 0), "adamw": (2, 4)}


@dataclass(frozen=True)
class Memory:
    """What one rank holds at the moment when it holds most.

    Attributes
    ----------
    peak_bytes : int
        Most bytes alive at once, the optimizer's state included.
    moment : str
        When that is: ``forward``, ``loss``, ``backward``, or ``end`` (the sum of the weights'
        gradients, and after it).
    layer : int or None
        The layer that is computed then.
    """

    peak_bytes: int
    moment: str
    layer: int | None
    _before: tuple[tuple[str, int], ...] = field(repr=False, compare=False)
    _walked: tuple[tuple[int | None, Stretch], ...] = field(repr=False, compare=False)

    @cached_property
    def tensors(self) -> Mapping[tuple[int | None, str, str], int]:
        """Bytes at the peak by layer, branch and tensor: ``(3, "mlp.0", "hidden")``."""
        held = Counter({(None, "", name): size for name, size in self._before})
        left = None  # what the stretch before leaves to this one
        for i, (layer, stretch) in enumerate(self._walked):
            names, sizes = stretch.ledger.names, stretch.ledger.sizes
            if left and stretch.taken is not None:
                held[left] -= sizes[stretch.taken]
                held[layer, *names[stretch.taken]] += sizes[stretch.taken]
            live, until = 0, stretch.peak if i == len(self._walked) - 1 else None
            for entry in stretch.entries:
                if live == until:
                    break
                cell, sign = (entry, 1) if entry >= 0 else (~entry, -1)
                live += sign * sizes[cell]
                held[_place(layer, names[cell])] += sign * sizes[cell]
            left = None if stretch.left is None else (layer, *names[stretch.left])
        return {key: size for key, size in held.items() if size}

    @cached_property
    def kinds(self) -> Mapping[str, int]:
        """Bytes at the peak by kind, one of `KINDS`; together they are ``peak_bytes``."""
        found = dict.fromkeys(KINDS, 0)
        for (_, _, name), size in self.tensors.items():
            found[_KIND_OF.get(name, "activations")] += size
        return found


def _place(layer: int | None, name: tuple[str, str]) -> tuple[int | None, str, str]:
    return (None if name[0] == FSDP else layer, *name)


def closed_form_memory(
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
    fsdp: bool | str = False,
    optimizer: str | None = None,
    **options,
) -> Memory:
    """Peak memory of rank 0 in one training step, by arithmetic: any ``p``, about a millisecond.

    The most over all moments of the step of the bytes alive then. Each kind of block is gone
    through once, forward and backward, allocation by allocation; a model is a sequence of blocks,
    each of which starts where the one before has ended. Equal to ``fake_step(...).peak_bytes`` to
    the byte, and so to the live storages of a real rank (on a CPU in bfloat16 a little more: there
    norms keep their statistics in bfloat16, elsewhere in float32). With ``fsdp`` it goes through
    what torch's FSDP makes on a CPU, where nothing waits for a stream. Not covered: autocast,
    positions, texts, samples of unequal length, windows, rings that gather all at once. Scratch
    memory inside kernels, the allocator's rounding and fragmentation, and a device's own context
    are left out.

    Parameters
    ----------
    spec, strategy, p, dtype, shard, mesh, checkpoint, switch, accumulate, fsdp, **options
        As for `fake_step`.
    optimizer : {None, "sgd", "adamw"}
        Its state between two steps is added; what its own step makes for a moment is not.

    Raises
    ------
    ValueError
        If the strategy can't run this, or the closed form does not cover it.

    Examples
    --------
    >>> from workbench.step import fake_step
    >>> from workbench.transformer import PRESETS
    >>> found = closed_form_memory(PRESETS["toy-video"], "dsp", p=4)
    >>> found.peak_bytes == fake_step(PRESETS["toy-video"], "dsp", p=4).peak_bytes
    True
    >>> sum(found.kinds.values()) == found.peak_bytes
    True
    """
    if optimizer not in _OPTIMIZERS:
        known = ", ".join(map(repr, _OPTIMIZERS))
        raise ValueError(f"optimizer must be one of {known}; got {optimizer!r}")
    memory = {"checkpoint": checkpoint, "switch": switch, "accumulate": accumulate, "fsdp": fsdp}
    autocast = options.pop("autocast", False)
    cls, shard = prepared(spec, strategy, p, dtype, shard, mesh, memory, options)
    try:
        if autocast:
            raise NotCovered("autocast=True")
        step = StepForm(spec, cls, p, dtype, shard, mesh, **memory)
        return _at_peak(step.stretches(), step.held(), _state(step, optimizer))
    except NotCovered as missing:
        raise ValueError(
            f"closed_form_memory does not cover {missing} of {cls.name}; "
            "fake_step(...).peak_bytes counts any step"
        ) from None


def _state(step: StepForm, optimizer: str | None) -> int:
    copies, counter = _OPTIMIZERS[optimizer]
    return copies * step.weights + counter * step.tensors


def _at_peak(stretches: Iterator[tuple[str, int | None, Stretch]], held, optimizer: int) -> Memory:
    live = sum(held.values()) + optimizer
    walked, peak, at = [], 0, 0
    for moment in stretches:
        walked.append(moment)
        stretch = moment[2]
        if live + stretch.peak > peak:
            peak, at = live + stretch.peak, len(walked)
        live += stretch.net
    before = (*held.items(), ("optimizer", optimizer))
    moment, layer, _ = walked[at - 1]
    return Memory(peak, moment, layer, before, tuple(step[1:] for step in walked[:at]))
