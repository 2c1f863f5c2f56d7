"""What is trained: the description of a run, and the batch of each of its steps."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import isfinite, isqrt
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.dims import check_count, check_seed
from workbench.mesh import DATA
from workbench.strategies import Strategy, select
from workbench.train.digits import SMALLEST_SIDE, TRAINED_ON, Clips, Images, moving_digits
from workbench.transformer import TransformerSpec

DTYPES = ("float32", "float64")
OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}
#: Seeds of two runs are so far apart that their steps never share one.
STEPS_PER_SEED = 10**7

Patches = Float[Tensor, "batch time space pixels"]

#: 8 frames of 16 x 16 pixels in patches of 4 x 4.
DIGITS = TransformerSpec(
    dims={"time": 8, "space": 16}, stages=("space", "time"), d_model=64, num_heads=4,
    num_layers=2, batch=16, source="ours: small enough to learn moving digits in minutes",
)  # fmt: skip


class Batch(NamedTuple):
    """Noisy patches, how noisy each clip is (0 to 1), and the clips without noise: the target."""

    noisy: Patches
    moment: Float[Tensor, " batch"]
    target: Patches


@dataclass(frozen=True, kw_only=True)
class TrainTask:
    """Video diffusion on moving digits. Everything that decides on a loss curve stands here.

    Parameters
    ----------
    spec : TransformerSpec
        The transformer and the batch. Its dims are ``"time"``, the frames, and ``"space"``, the
        patches of one frame, a square number.
    steps : int
        Steps to make.
    lr : float
        Learning rate, constant.
    optimizer : {"adamw", "sgd"}
        torch's, with its defaults.
    patch : int
        Pixels along each edge of a patch.
    buckets : sequence of dict
        Dims of the batches, taken in turn; none: the spec's own. Weights don't depend on them.
    seed : int
        Decides weights, clips, noise and moments, alike for every strategy and ``p``.
    dtype : {"float32", "float64"}
        Of weights and activations.

    Raises
    ------
    ValueError
        If the sizes make no frames, or a number is out of its range.

    Examples
    --------
    >>> task = TrainTask(buckets=[{"time": 8, "space": 16}, {"time": 4, "space": 64}])
    >>> [task.spec_of(step).tokens for step in range(3)], task.side_of(1)
    ([128, 256, 128], 32)
    """

    spec: TransformerSpec = DIGITS
    steps: int = 200
    lr: float = 3e-3
    optimizer: str = "adamw"
    patch: int = 4
    buckets: Sequence[Mapping[str, int]] = field(default=())
    seed: int = 0
    dtype: str = "float32"

    def __post_init__(self):
        if not isinstance(self.spec, TransformerSpec):
            raise ValueError(f"spec must be a TransformerSpec, got {self.spec!r}")
        if isinstance(self.buckets, Mapping | None):
            raise ValueError(f"buckets is a list of dims, one a bucket; got {self.buckets!r}")
        object.__setattr__(self, "buckets", tuple(_as_clips(bucket) for bucket in self.buckets))
        object.__setattr__(self, "spec", replace(self.spec, dims=_as_clips(self.spec.dims)))
        check_count("steps", self.steps)
        check_count("patch", self.patch)
        for name, value, known in (
            ("dtype", self.dtype, DTYPES),
            ("optimizer", self.optimizer, OPTIMIZERS),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}")
        if type(self.lr) not in (int, float) or not (isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"lr must be a number above 0, got {self.lr!r}; try 1e-3")
        check_seed(self.seed)
        if self.seed >= 2**63 // STEPS_PER_SEED or self.steps > STEPS_PER_SEED // 2:
            raise ValueError(f"seed={self.seed} or steps={self.steps} is too large")
        if self.spec.valid or self.spec.context_length:
            raise ValueError(
                f"clips are of one length and have no texts, but the spec has valid="
                f"{self.spec.valid}, context_length={self.spec.context_length}; leave both out"
            )
        for dims in self.buckets or (self.spec.dims,):
            _check_frames(dims, self.patch)
            self._check_positions(dims)
        assert self.specs, "each bucket makes a spec, or says why not"

    def _check_positions(self, dims: Mapping[str, int]) -> None:
        most = self.spec.dims
        if self.spec.positions == "learned" and any(dims[name] > most[name] for name in most):
            raise ValueError(
                f"a bucket of {dict(dims)} has places that learned positions for {dict(most)} know "
                "nothing of; give the spec the largest bucket's dims, or positions='rope'"
            )

    @property
    def specs(self) -> tuple[TransformerSpec, ...]:
        """The model as each bucket sees it."""
        return tuple(replace(self.spec, dims=dims) for dims in self.buckets or (self.spec.dims,))

    def bucket_of(self, step: int) -> int:
        """Which of the `specs` a step runs, counted from 0."""
        return step % len(self.specs)

    def spec_of(self, step: int) -> TransformerSpec:
        """The model of a step, with the dims of its batch."""
        return self.specs[self.bucket_of(step)]

    def side_of(self, step: int) -> int:
        """Pixels along each edge of a step's frames."""
        return isqrt(self.spec_of(step).dims["space"]) * self.patch

    def check(
        self, strategy: str | type[Strategy], p: int, mesh: Mapping[str, int] | None = None
    ) -> type[Strategy]:
        """The strategy's class, if it can run every bucket on ``p`` ranks; else ValueError."""
        classes = [select(strategy, spec, p, mesh) for spec in self.specs]
        if mesh and DATA in mesh:
            raise ValueError(
                f"here all ranks share each clip, so there is no axis {DATA!r}; got mesh={mesh}"
            )
        return classes[0]

    def to_json(self) -> str:
        """All but ``steps``, as text: two tasks with equal texts make the same steps."""
        fields = {**asdict(replace(self, spec=DIGITS)), "spec": repr(self.spec)}
        del fields["steps"]
        return json.dumps(fields, sort_keys=True)


#: The dims of a clip, in order.
_CLIP = ("time", "space")


def _as_clips(dims: Mapping[str, int]) -> dict[str, int]:
    """The same dims in the order in which clips have them; others as they are, to be refused."""
    return {name: dims[name] for name in (_CLIP if set(dims) == set(_CLIP) else dims)}


def _check_frames(dims: Mapping[str, int], patch: int) -> None:
    if set(dims) != set(_CLIP):
        raise ValueError(
            f"a clip has the dims 'time' and 'space', got {list(dims)}; "
            "space is the number of patches of a frame"
        )
    space = dims["space"]
    if isqrt(space) ** 2 != space:
        raise ValueError(
            f"space={space} makes no square frame: it must be a square number of patches; "
            f"try {isqrt(space) ** 2} or {(isqrt(space) + 1) ** 2}"
        )
    if isqrt(space) * patch < SMALLEST_SIDE:
        raise ValueError(
            f"a frame of {space} patches of {patch} x {patch} pixels is too small: it needs "
            f"at least {SMALLEST_SIDE} x {SMALLEST_SIDE}"
        )


def batch_of(task: TrainTask, step: int, images: Images, held_out: bool = False) -> Batch:
    """The whole batch of one step: the same for every strategy, rank and p.

    A clip is mixed with noise, ``(1 - moment) clip + moment noise``, and the model should say what
    the clip was.

    References
    ----------
    Liu, Gong & Liu (2022), Flow Straight and Fast, arXiv:2209.03003: the straight way from noise
    to clip. Li & He (2025), Back to Basics, arXiv:2511.13720: asking for the clip, not the noise.
    """
    # Weights use the seed as it is; clips must not repeat their numbers.
    first = STEPS_PER_SEED // 2 if held_out else 1
    generator = torch.Generator().manual_seed(task.seed * STEPS_PER_SEED + first + step)
    pool = images[TRAINED_ON:] if held_out else images[:TRAINED_ON]
    spec, side = task.spec_of(step), task.side_of(step)
    clips = moving_digits(pool, spec.batch, spec.dims["time"], side, generator)
    clean = to_patches(clips, task.patch)
    noise = torch.randn(clean.shape, generator=generator)
    moment = torch.rand(spec.batch, generator=generator)
    share = moment[:, None, None, None]
    dtype = getattr(torch, task.dtype)
    parts = ((1 - share) * clean + share * noise, moment, clean)
    return Batch(*(part.to(dtype) for part in parts))


def to_patches(clips: Clips, patch: int) -> Patches:
    """Cut each frame into squares: ``[B, T, H, W] -> [B, T, S, pixels]``."""
    squares = clips.unflatten(3, (-1, patch)).unflatten(2, (-1, patch)).transpose(3, 4)
    return squares.flatten(4).flatten(2, 3)


def from_patches(patches: Patches, patch: int) -> Clips:
    """Undo `to_patches`."""
    rows = isqrt(patches.shape[2])
    squares = patches.unflatten(3, (patch, patch)).unflatten(2, (rows, rows))
    return squares.transpose(3, 4).flatten(4).flatten(2, 3)
