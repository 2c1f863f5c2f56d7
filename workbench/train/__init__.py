"""Real training: video diffusion on moving digits, under any strategy and on any number of ranks.

The curve of the loss depends on the task alone. Start with `TrainTask` and `train`.
"""

from workbench.train.denoiser import first_weights
from workbench.train.digits import digit_images, moving_digits
from workbench.train.generation import generate, held_out_loss
from workbench.train.run import Training, fake_training, torchrun_train, train
from workbench.train.task import DIGITS, TrainTask, batch_of, from_patches, to_patches

__all__ = [
    "DIGITS",
    "TrainTask",
    "Training",
    "batch_of",
    "digit_images",
    "fake_training",
    "first_weights",
    "from_patches",
    "generate",
    "held_out_loss",
    "moving_digits",
    "to_patches",
    "torchrun_train",
    "train",
]
