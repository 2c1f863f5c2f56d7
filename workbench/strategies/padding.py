"""Samples of unequal lengths in one batch: keys that are padding enter no softmax.

Padding itself is computed like the rest and sees the tokens that its sample has; nothing sees it.
So a row of nothing but padding stays finite, and what is sent doesn't depend on the lengths.
"""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from workbench.dims import Lengths, Stage
from workbench.layout import Layout


def padded(stage: Stage, lengths: Lengths, sizes: Mapping[str, int]) -> Stage:
    """``stage`` for samples of these lengths; a key is real if it is along all of its dims."""
    if not any(dim in lengths for dim in stage):
        return stage
    samples = max(len(lengths[dim]) for dim in stage if dim in lengths)
    real = np.ones((samples, 1), dtype=bool)
    for dim in stage:
        ends = np.array(lengths.get(dim, (sizes[dim],) * samples))
        within = np.arange(sizes[dim]) < ends[:, None]
        real = (real[:, :, None] & within[:, None]).reshape(samples, -1)
    return stage.with_real(real)


def real_tokens(
    lengths: Lengths, layout: Layout, rank: int, p: int
) -> Bool[Tensor, "batch *dims 1"]:
    """Which tokens of the part that ``rank`` of ``p`` holds are no padding of their samples."""
    shape, count = layout.local_shape(p), len(next(iter(lengths.values())))
    real = torch.ones([count] + [1] * (len(shape) - 1), dtype=torch.bool, device="cpu")
    for dim, ends in lengths.items():
        if dim not in layout.sizes:
            continue
        at, size = layout.position(dim), layout.sizes[dim]
        held = list(layout.held(dim, rank, p))
        places = torch.tensor(held + [size] * (shape[at] - len(held)), device="cpu")
        within = places < torch.tensor(ends, device="cpu")[:, None]
        real = real & within.view([count] + [-1 if i == at else 1 for i in range(1, len(shape))])
    return real
