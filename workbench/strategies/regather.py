"""Megatron-LM's linear map of a gathered input: the backward gathers again rather than keep it.

    forward    [B, T/sp, S, M] --all_gather--> [B, T, S, M] --weights-->; the part alone is kept
    backward   the same all_gather, for the gradients of the weights; then the reduce_scatter

Megatron-LM hides the second gather behind the gradient of the input; here it is done first.

Source: Korthikanti et al. (2022), arXiv:2205.05198, section 4.2.2.
"""

from itertools import starmap

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.comm import Comm
from workbench.layout import Layout


def regathered(h: Tensor, comm: Comm, layout: Layout, *maps: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Gather ``h``, which ``layout`` cuts, and map it by each weight and bias."""
    return list(_Regathered.apply(h, comm, layout, *(t for pair in maps for t in pair)))


class _Regathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h, comm, layout, *parameters):
        weights, biases = parameters[::2], parameters[1::2]
        ctx.comm, ctx.layout, ctx.site = comm, layout, comm.site()
        ctx.save_for_backward(h, *weights)
        whole = comm.relayout(h, layout, layout.with_value("shared"))
        return tuple(F.linear(whole, *pair) for pair in zip(weights, biases, strict=True))

    @staticmethod
    def backward(ctx, *grads):
        (h, *weights), comm, cut = ctx.saved_tensors, ctx.comm, ctx.layout
        comm.at(ctx.site.layer, ctx.site.stage)
        with comm.again():
            whole = comm.relayout(h, cut, cut.with_value("shared")).flatten(0, -2)
            rows = [grad.flatten(0, -2) for grad in grads]
            of_maps = [(row.mT @ whole, row.sum(0)) for row in rows]
            del whole
            sums = sum(starmap(torch.matmul, zip(grads, weights, strict=True)))
            of_h = comm.relayout(sums, cut.with_value("partial"), cut)
        return of_h, None, None, *(t for pair in of_maps for t in pair)
