"""What a trained model can do, on one device: clips of its own, and its loss on held-out digits."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from workbench.comm import Comm
from workbench.strategies import Strategy
from workbench.train.denoiser import Denoiser
from workbench.train.digits import BRIGHT, DARK, Clips, digit_images
from workbench.train.task import TrainTask, batch_of, from_patches

Weights = Mapping[str, Tensor]


@torch.no_grad()
def generate(
    task: TrainTask, weights: Weights, count: int = 4, steps: int = 40, seed: int = 0
) -> Clips:
    """Draw clips: begin with noise and go step by step towards what the model says is behind it.

    Parameters
    ----------
    task : TrainTask
        What was trained; clips have the dims of its spec.
    weights : dict of str to Tensor
        Logical weights.
    count, steps, seed : int
        Clips; steps of Euler's method from noise to clip; the noise.
    """
    spec = replace(task.spec, batch=count)
    model = Denoiser(spec, Strategy(Comm(1), spec), weights)
    shape = (count, *spec.dims.values(), task.patch**2)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    x = x.to(getattr(torch, task.dtype))
    for left in range(steps, 0, -1):
        said, _ = model(x, torch.full((count,), left / steps, dtype=x.dtype))
        x = x + (said - x) / left  # what is left of the way, in as many steps
    return from_patches(x, task.patch).clamp(DARK, BRIGHT)


@torch.no_grad()
def held_out_loss(task: TrainTask, weights: Weights, batches: int = 4) -> float:
    """Mean loss on clips of digits that are never trained on, over all buckets."""
    images, losses = digit_images(), []
    for step in range(batches * len(task.specs)):
        spec = task.spec_of(step)
        model = Denoiser(spec, Strategy(Comm(1), spec), weights)
        noisy, moment, target = batch_of(task, step, images, held_out=True)
        said, _ = model(noisy, moment)
        losses.append((said - target).square().mean().item())
    return sum(losses) / len(losses)
