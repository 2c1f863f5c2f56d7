"""A text that all tokens attend to, whose own tokens are cut over the ranks.

Where each rank has all heads it projects its part of the text, and keys and values are gathered,
once for each cross-attention; their gradients are summed and scattered on the way back:

    K, V [B, L/sp, 2 H C] --all_gather--> [B, L, 2 H C]        (backward: reduce_scatter)

Where heads are cut (Megatron), a rank needs all of the text for its heads; the text itself is
gathered. It is given, so nothing comes back:

    text [B, L/sp, M] --all_gather--> [B, L, M]

With several axes the last one cuts what the others leave, and is gathered first. Padding at the
end of the text is dropped by the gather, so that no softmax sees it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import prod

from jaxtyping import Float
from torch import Tensor

from workbench.comm import Comm
from workbench.dims import Dims
from workbench.geometry import Geometry
from workbench.layout import Cut, Layout, shard_size

#: One rank's part of the texts, or of their keys and values; and all of them.
Part = Float[Tensor, "batch part width"]
Whole = Float[Tensor, "batch context width"]


def cut_text(geometry: Geometry, axes: Sequence[Comm]) -> Layout:
    """The layout of the text on a rank of ``axes``, the outermost first."""
    *outer, last = axes
    whole = replace(geometry.text, axis=last.axis)
    if geometry.context == "replicated" or prod(comm.size for comm in axes) == 1:
        return whole
    cuts = tuple(Cut("context", comm.axis, comm.size, comm.rank) for comm in outer)
    return replace(whole, split="context", outer=cuts)


def gather_text(t: Part, geometry: Geometry, axes: Sequence[Comm]) -> Whole:
    """Gather all of a tensor that is cut as the text is; its gradient is summed and scattered."""
    lengths = [geometry.context_length]
    for comm in axes:
        lengths.append(shard_size(lengths[-1], comm.size))
    for comm, length in zip(reversed(axes), reversed(lengths[:-1]), strict=True):
        sizes = Dims({"batch": t.shape[0], "context": length, "model": t.shape[-1]})
        cut = Layout(sizes, "context", axis=comm.axis)
        t = comm.relayout(t, cut, cut.with_value("shared"))
    return t


def gathered_elements(geometry: Geometry, ranks: Iterable[int], width: int) -> int:
    """Elements that each rank sends to gather ``width`` channels of the text."""
    length, sent = geometry.context_length, 0
    for size in ranks:
        length = shard_size(length, size)
        sent += (size - 1) * geometry.batch * length * width
    return sent
