"""Weights cut along the ranks that cut tokens: torch's own FSDP (ZeRO, stage 3) around a strategy.

Each branch is one group: its weights are gathered just before it runs and let go of afterwards;
its gradients are summed and scattered. `Comm` moves and records both.
"""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.fsdp._fully_shard._fsdp_api import AllGather, ReduceScatter

from workbench.comm import Comm, Site
from workbench.launch import local_device
from workbench.model import Transformer


@contextmanager
def faked(p: int | None) -> Iterator[None]:
    """In here tensors have no values; and torch believes that it is rank 0 of ``p``, if given.

    FSDP and autocast know no meta tensors; they take torch's fake tensors, which know a device.

    Raises
    ------
    RuntimeError
        If this process belongs to a real process group already: torch has room for one.
    """
    with contextlib.ExitStack() as stack:
        if p is not None:
            stack.enter_context(_fake_group(p))
        stack.enter_context(FakeTensorMode())
        yield


@contextmanager
def _fake_group(p: int) -> Iterator[None]:
    if dist.is_initialized():
        raise RuntimeError(
            "fake_step(fsdp=True) makes a fake process group, and this process is a rank of a real "
            "one. Call it before torch.distributed is initialised, or ask closed_form_bytes"
        )
    from torch.testing._internal.distributed.fake_pg import FakeStore  # registers the backend

    dist.init_process_group("fake", rank=0, world_size=p, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


def cut(model: Transformer, comm: Comm, keep_gathered: bool = False) -> None:
    """Cut the weights of each branch over the ranks of ``comm``; the first dim of each is cut."""
    group = comm.group or dist.group.WORLD
    with nullcontext() if comm.group else unset_fake_temporarily():
        mesh = DeviceMesh.from_group(group, local_device().type if comm.group else "cpu")
    groups = [
        (branch, Site(place.layer, place.index, "fsdp.py"))
        for place, branch in zip(model.places, model.branches, strict=True)
    ]
    # The model itself comes last: what is left, such as learned positions, is its group.
    for module, site in [*groups, (model, Site(None, None, "fsdp.py"))]:
        fully_shard(module, mesh=mesh, reshard_after_forward=not keep_gathered)
        module.set_custom_all_gather(_Gather(comm, site))
        module.set_custom_reduce_scatter(_Scatter(comm, site))
        # Each rank's loss is a part of the whole one: gradients are summed, not averaged.
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)


class _Moved:
    """What FSDP asks of a collective: a buffer, and a call."""

    def __init__(self, comm: Comm, site: Site):
        self.comm, self.site = comm, site

    def allocate(self, size, *, dtype, device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)


class _Gather(_Moved, AllGather):
    def __call__(self, output_tensor, input_tensor, group, async_op=False) -> None:
        self.comm.gather_weights(output_tensor, input_tensor, self.site)


class _Scatter(_Moved, ReduceScatter):
    def __call__(self, output_tensor, input_tensor, group, op, async_op=False) -> None:
        assert op == dist.ReduceOp.SUM, op
        self.comm.scatter_gradients(output_tensor, input_tensor, self.site)
