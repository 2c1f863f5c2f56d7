"""Sending between two ranks without waiting for it."""

import time
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from workbench.collectives import Collective


def traced(name: str) -> AbstractContextManager:
    """Call what runs inside ``name`` in a profiler's trace; without a profiler, nothing happens."""
    if torch.autograd._profiler_enabled():
        return torch.profiler.record_function(name)
    return nullcontext()


class Pair(NamedTuple):
    """One tensor goes to a rank of the group while another comes from one."""

    sent: Tensor
    to: int
    received: Tensor
    source: int


def send_and_receive(
    pairs: list[Pair], group: dist.ProcessGroup, piece_bytes: int | None = None
) -> list[dist.Work]:
    """Start all transfers of a rank, in pieces of at most ``piece_bytes``; what to wait for.

    Contiguous tensors, which must live until then, and not be changed.
    """
    size = piece_bytes or max(pair.sent.nbytes for pair in pairs) or 1
    cut = [(_pieces(pair.sent, size), _pieces(pair.received, size), pair) for pair in pairs]
    ops = []
    for i in range(max(len(sent) for sent, _, _ in cut)):
        for sent, received, pair in cut:
            ops.append(dist.P2POp(dist.isend, sent[i], group=group, group_peer=pair.to))
            ops.append(dist.P2POp(dist.irecv, received[i], group=group, group_peer=pair.source))
    return dist.batch_isend_irecv(ops)


def _pieces(x: Tensor, size: int) -> tuple[Tensor, ...]:
    return x.view(-1).split(max(size // x.element_size(), 1))


class Transfer:
    """A transfer on its way, which computing may hide; it holds on to what is being sent."""

    def __init__(
        self, record: Collective, sent: Tensor, received: Tensor, requests: list, name: str = ""
    ):
        self._record, self._sent, self._received = record, sent, received
        self._requests, self._name = requests, name

    def wait(self) -> Tensor:
        """Return what has come, when all of it has; the record is told how long this took."""
        started = time.perf_counter()
        with traced(self._name):
            for request in self._requests:
                request.wait()
        # The record stays the same record; only this stopwatch, no part of equality, is set later.
        object.__setattr__(self._record, "waited_s", time.perf_counter() - started)
        received, self._sent, self._requests = self._received, None, []
        return received
