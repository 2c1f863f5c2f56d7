"""What happens in one layer, step by step: who holds which part, who sends what.

`walk` runs the real strategy on meta tensors and notes, between the records of its log, where
attention and the MLP run. Pictures of layouts are drawn from these frames and from nothing else.
Of the strategies by name it does so once for each number of ranks: which events there are does not
depend on the dims' sizes, so that an explorer need not wait for a run.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Literal, NamedTuple

from workbench.collectives import Collective, sent_bytes
from workbench.dims import Dims
from workbench.launch import run_fake
from workbench.layout import Layout, shard_size
from workbench.strategies import Strategy, choose_shard, select
from workbench.transformer import TransformerSpec
from workbench.watch import Kernel, events_of

#: First and last entry (exclusive) of each dim, padding included.
Box = dict[str, tuple[int, int]]


class Piece(NamedTuple):
    """A part of the tensor on one rank.

    ``source`` is the rank that it came from, ``None`` for a sum over all ranks; ``held`` is False
    for what was sent away and is not kept. ``role`` tells queries from keys and values.
    """

    source: int | None
    box: Box
    held: bool = True
    role: Literal["", "Q", "KV"] = ""


@dataclass(frozen=True)
class Frame:
    """What the ranks hold right after one event of a layer.

    Parameters
    ----------
    event : {"start", "collective", "attend", "hop", "mlp"}
        A hop is attention to the keys and values that came round a ring.
    p : int
        Ranks.
    layout : Layout
        Of the tensor that the event leaves; for ``"attend"`` of the queries, keys and values.
    layer, stage : int
        Where in the model.
    attended : tuple of str
        The dims that attention runs along.
    records : tuple of Collective
        What was sent; several of the same kind where queries, keys and values go alike.
    hop : int
        How far the keys and values have travelled: they are those of rank ``r - hop``.
    """

    event: Literal["start", "collective", "attend", "hop", "mlp"]
    p: int
    layout: Layout
    layer: int
    stage: int
    attended: tuple[str, ...] = ()
    records: tuple[Collective, ...] = ()
    hop: int = 0

    @property
    def sent_bytes(self) -> int:
        """Bytes that each rank sends in this event."""
        return sum(record.sent_bytes for record in self.records)

    @property
    def title(self) -> str:
        """The event in words and in layout notation."""
        along = " x ".join(self.attended)
        if self.event == "collective":
            first, count = self.records[0], len(self.records)
            times = f"{count} x " if count > 1 else ""
            return f"{times}{first.kind}: {first.before} -> {first.after}"
        if self.event == "hop":
            whose = f"K, V of rank r-{self.hop}" if self.hop else "own K, V"
            return f"attention along {along}, hop {self.hop}: {whose}"
        what = {"start": "start", "attend": f"attention along {along}", "mlp": "MLP"}[self.event]
        return f"{what}: {self.layout}"

    def pieces(self, rank: int) -> list[Piece]:
        """What ``rank`` holds after the event, and what it has sent away."""
        mine = box(self.layout, rank, self.p)
        if self.event == "hop":
            source = (rank - self.hop) % self.p
            keys = Piece(source, box(self.layout, source, self.p), role="KV")
            return [Piece(rank, mine, role="Q"), keys]
        if self.event != "collective":
            return [Piece(rank, mine)]
        before, kind = self.records[0].before, self.records[0].kind
        if kind in ("reduce_scatter", "all_reduce"):
            held = [Piece(None, mine)]
        else:
            parts = (_common(before, s, self.layout, rank, self.p) for s in range(self.p))
            held = [Piece(s, part) for s, part in enumerate(parts)]
        return held + [Piece(rank, part, held=False) for part in self._leaving(rank)]

    def _leaving(self, rank: int) -> Iterator[Box]:
        """What ``rank`` sends in an exchange, where each peer gets another part."""
        if self.layout.split is None:
            return
        for peer in range(self.p):
            if peer != rank:
                yield _common(self.records[0].before, rank, self.layout, peer, self.p)


def box(layout: Layout, rank: int, p: int) -> Box:
    """The part of a tensor that ``rank`` of ``p`` holds, padding included, without the batch.

    Examples
    --------
    >>> video = Layout(Dims({"batch": 1, "time": 5, "space": 8, "model": 4}), "time")
    >>> box(video, rank=1, p=2)
    {'time': (3, 6), 'space': (0, 8), 'model': (0, 4)}
    """
    bounds = {name: (0, size) for name, size in layout.sizes.items() if name != "batch"}
    if layout.split is not None:
        part = shard_size(layout.sizes[layout.split], p)
        bounds[layout.split] = (rank * part, (rank + 1) * part)
    return bounds


def _common(before: Layout, source: int, after: Layout, rank: int, p: int) -> Box:
    """What ``source`` held before and ``rank`` holds after, padding included."""
    both = box(after, rank, p)
    if before.split is not None:
        both[before.split] = box(before, source, p)[before.split]
    return both


def walk(
    spec: TransformerSpec,
    strategy: str | type[Strategy],
    p: int,
    shard: str | None = None,
    *,
    layers: int = 1,
    **options,
) -> list[Frame]:
    """Go through the forward pass of the first layers on meta tensors, frame by frame.

    Parameters
    ----------
    spec, strategy, p, shard, **options
        As for `fake_step`.
    layers : int
        How many to show. A switch that leads into the next layer is shown too.

    Raises
    ------
    ValueError
        If the strategy can't run this; the message names those that can.

    Examples
    --------
    >>> from workbench.transformer import PRESETS
    >>> for frame in walk(PRESETS["toy-video"], "dsp", p=4):
    ...     print(frame.title)
    start: [B, T/sp, S, M]
    attention along space: [B, T/sp, S, H, C]
    all_to_all: [B, T/sp, S, M] -> [B, T, S/sp, M]
    attention along time: [B, T, S/sp, H, C]
    all_to_all: [B, T, S/sp, M] -> [B, T/sp, S, M]
    """
    cls = select(strategy, spec, p, **options)
    shard = choose_shard(cls, spec, p, spec.branches, shard)
    shown = replace(spec, num_layers=min(layers + 1, spec.num_layers))
    shown = replace(shown, context_length=0, valid={})  # a text has no place in the pictures
    if cls.axes or getattr(cls, "order", "contiguous") != "contiguous":
        raise ValueError(
            f"only layouts cut by one axis into runs can be shown; got {cls.name} along "
            f"{' x '.join(cls.axes) or 'one axis'} in {getattr(cls, 'order', 'contiguous')} order"
        )
    if options or not isinstance(strategy, str):  # a schedule may look at the sizes
        return _frames(shown, cls, p, shard, layers)
    small = replace(shown, dims=dict.fromkeys(spec.dims, p), batch=1)
    return [_resized(frame, spec) for frame in _known_frames(small, cls, p, shard, layers)]


def _frames(spec: TransformerSpec, cls: type[Strategy], p: int, shard, layers) -> list[Frame]:
    start, events = run_fake(lambda rank, comm: events_of(comm, spec, cls, shard, layers), p)
    frames = [Frame("start", p, start, 0, 0)]
    for event in events:
        if event.layer < layers:
            frames = _extended(frames, event, spec)
        elif event.stage == 0 and _is_switch(event):
            return _extended(frames, event, spec)
    return frames


_known_frames = lru_cache(maxsize=256)(_frames)


def _resized(frame: Frame, spec: TransformerSpec) -> Frame:
    """The same event where the dims and the batch have the sizes of ``spec``."""
    sizes = {"batch": spec.batch, **spec.dims}

    def fitted(layout):
        named = {name: sizes.get(name, size) for name, size in layout.sizes.items()}
        return replace(layout, sizes=Dims(named))

    def moved(record):
        before, after = fitted(record.before), fitted(record.after)
        sent = _buffer(record.kind, before, after, frame.p)
        told = record.input_bytes // _buffer(record.kind, record.before, record.after, frame.p)
        return replace(
            record, before=before, after=after, input_bytes=told * sent,
            sent_bytes=sent_bytes(record.kind, told * sent, frame.p),
        )  # fmt: skip

    records = tuple(map(moved, frame.records))
    return replace(frame, layout=fitted(frame.layout), records=records)


def _buffer(kind: str, before: Layout, after: Layout, p: int) -> int:
    """Numbers in the buffer that a rank passes, for each tensor in it, padding included."""
    shape = list(before.local_shape(p))
    if kind in ("all_to_all", "reduce_scatter"):
        dim = after.position(after.split)
        shape[dim] = p * shard_size(shape[dim], p)
    return prod(shape)


def _is_switch(event: Collective | Kernel) -> bool:
    """Tell whether the cut of the residual stream moves."""
    return getattr(event, "kind", "") == "all_to_all" and "model" in event.before.sizes


def _extended(frames: list[Frame], event: Collective | Kernel, spec) -> list[Frame]:
    """``frames`` and what ``event`` adds: one more, or something to the last of them."""
    last, place = frames[-1], {"layer": event.layer, "stage": event.stage}
    if isinstance(event, Kernel):
        new = _kernel_frame(last, event, spec)
        return frames if new is None else [*frames, new]
    if event.kind == "ring_shift":
        return [*frames, replace(last, records=(event,), hop=last.hop + 1)]
    if last.records and event == last.records[0] and event.before == last.records[0].before:
        return [*frames[:-1], replace(last, records=(*last.records, event))]
    return [*frames, Frame("collective", last.p, event.after, **place, records=(event,))]


def _kernel_frame(last: Frame, call: Kernel, spec) -> Frame | None:
    """The frame of a kernel; None where nothing new is to be seen."""
    if call.event == "mlp":
        hidden = spec.d_model * spec.mlp_ratio
        if call.shape[-1] == hidden:
            return None  # each token for itself, laid out as it was
        sizes = Dims({"batch": spec.batch, **spec.dims, "ff": hidden})
        return Frame("mlp", last.p, Layout(sizes, "ff"), call.layer, call.stage)
    if last.event == call.event == "hop" and (last.layer, last.stage) == call[1:3]:
        return None  # the frame of the ring shift that brought the keys and values
    layout = last.layout
    if layout.split != "heads":
        layout = spec.heads(spec.stream.with_split(layout.split))
        layout = layout.with_split("heads") if call.shape[1] < spec.num_heads else layout
    elif layout.sizes["heads"] != spec.num_heads:  # that of keys and values, which share heads
        layout = replace(layout, sizes=Dims({**layout.sizes, "heads": spec.num_heads}))
    whole = prod(call.shape) == prod(layout.local_shape(last.p))
    assert whole or call.event == "hop", (call, layout)  # a hop may compute some queries only
    stage = spec.stages[call.stage]
    return Frame(call.event, last.p, layout, call.layer, call.stage, attended=stage)
