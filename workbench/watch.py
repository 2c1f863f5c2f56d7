"""Which kernels and collectives a forward pass runs, in order, without running them."""

from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from workbench.collectives import Collective
from workbench.comm import Comm
from workbench.layout import Layout
from workbench.model import Transformer

aten = torch.ops.aten

#: Kernels that a frame stands for, and which of their arguments holds the queries or hidden units.
_KERNELS = {
    aten._scaled_dot_product_flash_attention_for_cpu: ("attend", 0),
    torch.ops.workbench.ring_merge: ("hop", 2),
    aten.gelu: ("mlp", 0),
}

#: Arithmetic that lays nothing out anew, with what its result looks like. PyTorch's own answers
#: for meta tensors are right, too, but come from Python and take most of a walk's time.
_ARITHMETIC = {
    aten.native_layer_norm.default: lambda x, *_: (_like(x), _like(x), _like(x)),
    aten.gelu.default: lambda x, *_: _like(x),
    aten.add.Tensor: lambda x, y: x.new_empty(torch.broadcast_shapes(x.shape, y.shape)),
    aten.addmm.default: lambda bias, x, w: x.new_empty((x.shape[0], w.shape[1])),
    aten.mm.default: lambda x, w: x.new_empty((x.shape[0], w.shape[1])),
}


class Kernel(NamedTuple):
    """A kernel's call; shape: ``[N, H, S, C]`` of the queries, ``[..., hidden]`` of the MLP."""

    event: str
    layer: int
    stage: int
    shape: tuple[int, ...]


class _Seen(Exception):
    """Raised by the first kernel of the next layer: nothing more is to be shown."""


class _Watch(TorchDispatchMode):
    """Gathers the log's records and the kernels' calls of the first layers, in their order."""

    def __init__(self, comm: Comm, layers: int):
        super().__init__()
        self.comm, self.layers, self.events, self._read = comm, layers, [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if found := _KERNELS.get(func.overloadpacket):
            self.read_log()
            site, shape = self.comm.site(), tuple(args[found[1]].shape)
            if site.layer >= self.layers:
                raise _Seen
            self.events.append(Kernel(found[0], site.layer, site.stage, shape))
        if short := _ARITHMETIC.get(func):
            return short(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def read_log(self) -> None:
        self.events += self.comm.log[self._read :]
        self._read = len(self.comm.log)


def events_of(comm: Comm, spec, cls, shard, layers) -> tuple[Layout, list[Collective | Kernel]]:
    """The input's layout, and what happens in the first layers of a forward pass, in order."""
    strategy = cls(comm, spec, shard)
    weights = {name: torch.empty(shape) for name, shape in spec.weight_shapes().items()}
    model = Transformer(spec, strategy, weights)
    x = torch.empty(strategy.start.local_shape(comm.size))
    with torch.no_grad(), _Watch(comm, layers) as watch, suppress(_Seen):
        model(x)
    watch.read_log()
    return strategy.start, list(_as_they_arrive(watch.events))


def _as_they_arrive(events: list[Collective | Kernel]) -> Iterator[Collective | Kernel]:
    """Put a ring's transfer after the hop that hides it: it starts before, but is needed after."""
    coming = None
    for event in events:
        if coming and not (isinstance(event, Kernel) and event.event == "hop"):
            yield coming
            coming = None
        if isinstance(event, Collective) and event.kind == "ring_shift":
            coming = event
        else:
            yield event
    if coming:
        yield coming


def _like(x: torch.Tensor) -> torch.Tensor:
    return x.new_empty(x.shape)
