"""Collectives along one mesh axis. Every call is recorded; every call knows its own backward."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

from workbench.collectives import Collective, Phase, sent_bytes
from workbench.layout import Layout, collective_between, dealt, pad_to, shard_size, take_shard
from workbench.transfer import Pair, Transfer, send_and_receive, traced


class Site(NamedTuple):
    """The place in the model and in the code from which a collective was asked for."""

    layer: int | None
    stage: int | None
    where: str


class Comm:
    """The ranks of one mesh axis, seen from one of them.

    Parameters
    ----------
    size, rank : int
        Ranks of the group, and which of them this is.
    group : ProcessGroup or None
        ``None`` makes a *fake* comm: it allocates the same buffers and keeps the same log, but
        sends nothing and its values mean nothing. Meant for meta tensors.
    axis : str
        Name of the mesh axis.

    Attributes
    ----------
    log : list of Collective
        All that this rank has communicated, forward and backward, in order.
    piece_bytes : int or None
        Where wires are slow, exchanges travel in pieces of at most this size, all of them on their
        way at once; still one record.
    """

    piece_bytes: int | None = None

    def __init__(
        self, size: int, rank: int = 0, group: dist.ProcessGroup | None = None, axis: str = "sp"
    ):
        self.size, self.rank, self.group, self.axis = size, rank, group, axis
        self.log: list[Collective] = []
        self._place: list[int | None] = [None, None]
        self._again: list[bool] = [False]

    def beside(self, axis: str, size: int, rank: int, group: dist.ProcessGroup | None) -> "Comm":
        """A comm along another axis of the same mesh; it writes the same log."""
        other = Comm(size, rank, group, axis)
        other.log, other._place, other._again = self.log, self._place, self._again
        other.piece_bytes = self.piece_bytes
        return other

    def at(self, layer: int, stage: int) -> None:
        """Say which layer and stage the following collectives belong to."""
        self._place[:] = layer, stage

    @contextmanager
    def again(self) -> Iterator[None]:
        """What a forward pass sends here is part of the backward: a checkpoint runs it again."""
        self._again[0] = True
        try:
            yield
        finally:
            self._again[0] = False

    @property
    def phase(self) -> Phase:
        """The phase that a forward pass belongs to now."""
        return "backward" if self._again[0] else "forward"

    def site(self) -> Site:
        """The current layer and stage, and the first line up the stack outside this file."""
        frame = sys._getframe(1)
        while frame.f_code.co_filename == __file__:
            frame = frame.f_back
        file = frame.f_code.co_filename.replace("\\", "/").rsplit("/", 1)[-1]
        return Site(*self._place, f"{file}:{frame.f_lineno}")

    def relayout(
        self, x: Shaped[Tensor, "..."], before: Layout, after: Layout
    ) -> Shaped[Tensor, "..."]:
        """Turn one layout of a tensor into another, by the collective that `layout` names.

        Parameters
        ----------
        x : Tensor
            This rank's part, of shape ``before.local_shape(p)``.
        before, after : Layout
            Two layouts of the same logical tensor.

        Returns
        -------
        Tensor
            This rank's part, of shape ``after.local_shape(p)``. The backward takes the gradient
            from ``after.gradient()`` to ``before.gradient()``: an all-to-all goes back as an
            all-to-all, an all-gather of a shared copy as a reduce-scatter, and so on.
        """
        if self.size == 1 or before == after:
            return x
        return _Relayout.apply(x, self, before, after, self.site())

    def ring_shift(
        self, x: Shaped[Tensor, "..."], layout: Layout, phase: Phase, site: Site
    ) -> Transfer:
        """Start to send ``x`` to the next rank; ``wait()`` returns what the previous one sent.

        Meanwhile ``x`` must not be changed. No autograd.
        """
        x = x.contiguous()
        self._record("ring_shift", layout.split, x, phase, site, layout, layout)
        received, requests = torch.empty_like(x), []
        if self.group is not None and self.size > 1:
            to, source = (self.rank + 1) % self.size, (self.rank - 1) % self.size
            with traced(self._name):
                requests = self._started([Pair(x, to, received, source)])
        return Transfer(self.log[-1], x, received, requests, self._name)

    def sum_gradients(self, gradients: Iterable[Tensor], axis: str = "*") -> None:
        """Sum gradients of replicated weights over the ranks, in place.

        They travel as one flat bucket per dtype, padded to a multiple of the ranks. ``axis`` is
        what the record calls it: ``"*"`` for all axes of the mesh.
        """
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for gradient in gradients:
            by_dtype.setdefault(gradient.dtype, []).append(gradient)
        if self.size == 1:
            return
        for same in by_dtype.values():
            with traced("relayout"):
                flat = torch.cat([g.flatten() for g in same])
                total = flat.numel()
                flat = pad_to(flat, 0, shard_size(total, self.size) * self.size)
                site = Site(None, None, self.site().where)
                self._record("all_reduce", None, flat, "gradients", site, axis=axis)
                self._all_summed(flat)
                parts = flat[:total].split([g.numel() for g in same])
                for gradient, part in zip(same, parts, strict=True):
                    gradient.copy_(part.view_as(gradient))

    def gather_weights(self, whole: Tensor, part: Tensor, site: Site) -> None:
        """Gather all ranks' parts of flat weights into ``whole``."""
        self._record("all_gather", None, part, "weights", site, axis="*")
        self._gathered(whole, part)

    def scatter_gradients(self, part: Tensor, whole: Tensor, site: Site) -> None:
        """Sum flat gradients over the ranks; each keeps its part of the sum."""
        send = whole.view(self.size, -1)
        self._record("reduce_scatter", None, send, "gradients", site, axis="*")
        part.copy_(self._summed(send).view_as(part))

    @property
    def _name(self) -> str:
        """What a trace calls the collective that was recorded last, for it to be found in the log.

        Only what is sent runs under this name; copies around it run under "relayout".
        """
        return f"comm:{len(self.log) - 1}"

    def _record(self, kind, dim, x, phase, site, before=None, after=None, axis=None):
        size = x.numel() * x.element_size()
        dtype = str(x.dtype).removeprefix("torch.")
        sent = sent_bytes(kind, size, self.size)
        self.log.append(
            Collective(
                kind, axis or self.axis, dim, dtype, size, sent, phase,
                site.layer, site.stage, before, after, site.where,
            )
        )  # fmt: skip

    def _move(self, x, before: Layout, after: Layout, phase: Phase, site: Site):
        kind = collective_between(before, after)
        if kind is None:
            return take_shard(x, after, self.rank, self.size)
        assert x.shape == before.local_shape(self.size), (x.shape, before, self.size)
        move = getattr(self, f"_{kind}")
        with traced("relayout"):
            return move(x, before, after, phase, site)

    def _all_to_all(self, x, before, after, phase, site):
        send = self._in_chunks(x, after)
        dim = f"{before.split}->{after.split}"
        self._record("all_to_all", dim, send, phase, site, before, after)
        return self._joined(self._exchange(send), before)

    def _all_gather(self, x, before, after, phase, site):
        x = x.contiguous()
        self._record("all_gather", before.split, x, phase, site, before, after)
        parts = x.new_empty((self.size * x.shape[0], *x.shape[1:]))
        self._gathered(parts, x)
        parts = parts.unflatten(0, (self.size, x.shape[0]))
        return self._joined(parts, before)

    def _reduce_scatter(self, x, before, after, phase, site):
        send = self._in_chunks(x, after)
        self._record("reduce_scatter", after.split, send, phase, site, before, after)
        return self._summed(send)

    def _summed(self, send):
        """This rank's chunk of the sum over all ranks of ``send``: ``[p, ...]`` -> ``[...]``."""
        if self.group is None or dist.get_backend(self.group) == "gloo":
            # gloo's own reduce_scatter sends as much as an all-reduce: twice the optimum.
            return self._exchange(send).sum(0)
        out = torch.empty_like(send[0])
        with traced(self._name):
            dist.reduce_scatter_single(out, send.flatten(0, 1), group=self.group)
        return out

    def _all_reduce(self, x, before, after, phase, site):
        total = x.clone(memory_format=torch.contiguous_format)
        self._record("all_reduce", None, total, phase, site, before, after)
        self._all_summed(total)
        return total

    def _all_summed(self, x):
        if self.group is not None:
            with traced(self._name):
                dist.all_reduce(x, group=self.group)

    def _gathered(self, whole, part):
        if self.group is not None:
            with traced(self._name):
                dist.all_gather_single(whole, part, group=self.group)

    def _in_chunks(self, x, after):
        """``x`` padded and cut as ``after`` says, one chunk a rank: ``[p, ..., size / p, ...]``."""
        dim = after.position(after.split)
        part = shard_size(x.shape[dim], self.size, after.order)
        padded = pad_to(x, dim, part * self.size)
        if after.order != "contiguous":
            padded = padded.index_select(dim, self._dealing(padded, dim, after.order))
        return padded.unflatten(dim, (self.size, part)).movedim(dim, 0).contiguous()

    def _exchange(self, send):
        received = torch.empty_like(send)
        if self.group is not None:
            with traced(self._name):
                self._all_to_all_into(received, send)
        return received

    def _all_to_all_into(self, received, send):
        if self.piece_bytes is None:
            dist.all_to_all_single(received, send, group=self.group)
            return
        received[self.rank] = send[self.rank]
        peers = [(self.rank + step) % self.size for step in range(1, self.size)]
        back = [(self.rank - step) % self.size for step in range(1, self.size)]
        pairs = [Pair(send[to], to, received[of], of) for to, of in zip(peers, back, strict=True)]
        for request in self._started(pairs):
            request.wait()

    def _started(self, pairs) -> list:
        return send_and_receive(pairs, self.group, self.piece_bytes)

    def _joined(self, parts, before):
        """The inverse of `_in_chunks`, without the padding."""
        dim = before.position(before.split)
        size = before.shared[before.split]
        x = parts.movedim(0, dim).flatten(dim, dim + 1)
        if before.order != "contiguous":
            return x.index_select(dim, self._dealing(x, dim, before.order).argsort()[:size])
        return x.narrow(dim, 0, size)

    def _dealing(self, x, dim, order):
        """The entries of ``dim``, padding included, as the ranks hold them one after another."""
        size = x.shape[dim]
        parts = (dealt(range(size), size, rank, self.size, order) for rank in range(self.size))
        return torch.tensor([entry for part in parts for entry in part], device=x.device)


class _Relayout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, comm, before, after, site):
        ctx.comm, ctx.before, ctx.after, ctx.site = comm, before, after, site
        return comm._move(x, before, after, comm.phase, site)

    @staticmethod
    def backward(ctx, grad):
        before, after = ctx.before.gradient(), ctx.after.gradient()
        return ctx.comm._move(grad, after, before, "backward", ctx.site), None, None, None, None
