"""Clips of a handwritten digit that moves over a dark frame and bounces off its edges."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

#: Of scikit-learn's 1,797 digits, the first are trained on, the others are held out.
TRAINED_ON = 1500
#: Darkest and brightest value of a pixel.
DARK, BRIGHT = -1.0, 1.0
#: The smallest frame: a digit is half as wide as its frame, and needs room to move.
SMALLEST_SIDE = 4

Images = Float[Tensor, "n rows columns"]
Clips = Float[Tensor, "batch time height width"]


def digit_images() -> Images:
    """scikit-learn's digits, 1,797 images of 8 x 8 pixels from -1 (dark) to 1.

    Raises
    ------
    ModuleNotFoundError
        Without scikit-learn, which brings them along.

    References
    ----------
    Alpaydin & Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning
    Repository, https://archive.ics.uci.edu/dataset/80 (its test part).
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "moving digits are made from scikit-learn's, which is missing: pip install scikit-learn"
        ) from None
    images = torch.tensor(load_digits().images, dtype=torch.float32)  # whole numbers, 0 to 16
    return images / 16 * (BRIGHT - DARK) + DARK


def moving_digits(
    images: Images, batch: int, frames: int, side: int, generator: torch.Generator
) -> Clips:
    """Draw clips: one digit each, with a place and a speed of its own.

    Parameters
    ----------
    images : Tensor
        What to draw from, as `digit_images` gives them.
    batch, frames, side : int
        Clips, frames of a clip, and pixels along each edge of a frame. The digit is half as wide.
    generator : torch.Generator
        Where all chance comes from.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> moving_digits(torch.ones(1, 8, 8), 2, 3, 16, generator).shape
    torch.Size([2, 3, 16, 16])
    """
    size = side // 2
    chosen = images[torch.randint(len(images), (batch,), generator=generator)]
    digits = F.interpolate(chosen[:, None], (size, size), mode="bilinear", antialias=True)[:, 0]
    places = _places(batch, frames, side - size, side / 16, generator)
    across = torch.arange(side) - places[..., None]  # [batch, time, 2, side]: within the digit
    rows, columns = across[:, :, 0, :, None], across[:, :, 1, None, :]
    clips = torch.arange(batch)[:, None, None, None]
    moved = digits[clips, rows.clamp(0, size - 1), columns.clamp(0, size - 1)]
    inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    return torch.where(inside, moved, DARK)


def _places(batch, frames, room, fastest, generator):
    """Whole pixels from the upper left corner, ``[batch, time, 2]``; edges throw back."""
    start = torch.rand(batch, 1, 2, generator=generator) * room
    speed = (2 * torch.rand(batch, 1, 2, generator=generator) - 1) * fastest
    path = start + speed * torch.arange(frames)[None, :, None]
    return (room - (path % (2 * room) - room).abs()).round().long()
