"""The inference latencies that the authors report, from the constants of their training figure."""

from dataclasses import replace
from typing import Literal, NamedTuple

from workbench.published.figure3 import H800, step_seconds
from workbench.transformer import PRESETS


class Latency(NamedTuple):
    """Seconds to sample one video of 80 frames of 512 x 512 on ``p`` H800, as published."""

    method: Literal["dsp", "ulysses"]
    p: int
    seconds: float


#: Source: github.com/NUS-HPC-AI-Lab/VideoSys@01bca9c docs/dsp.md (grade A). One GPU runs no method.
LATENCIES = (Latency("dsp", 1, 106.0), Latency("ulysses", 8, 45.0), Latency("dsp", 8, 22.0))
#: Denoising steps, and samples in each: with and without the text (guidance).
#: Source: the same, scripts/opensora/sample_opensora.py (100 steps) and
#: opendit/models/opensora/scheduler.py.
_STEPS, _GUIDED = 100, 2


def inference_latency(*, p: int, method: Literal["dsp", "ulysses"]) -> float:
    """Seconds to sample 80 frames of 512 x 512 with Open-Sora 1.0 on ``p`` H800 [s].

    Nothing is fitted here. Left out: text encoder, decoder of the latents, and a step's fixed
    cost, of which training's says little.

    Examples
    --------
    >>> one, eight = (inference_latency(p=p, method="dsp") for p in (1, 8))
    >>> 6 < one / eight < 8
    True
    """
    spec = replace(PRESETS["stdit-xl-2"], batch=_GUIDED)
    machine = replace(H800, step_overhead_s=0.0)
    return _STEPS * step_seconds(spec, method, p, machine, mode="inference")
