"""A ring's blocks on a GPU: torch's fused kernels against the same written out; short sequences.

    python benchmarks/gpu_blocks.py

Prints how many times as long, and how much more memory, the written-out ones take; then the
attention of equally many tokens in longer and longer sequences, whose staircase is the tile.
"""

import statistics
from collections.abc import Callable
from unittest.mock import patch

import torch

from workbench.calibration.kernels import took_on_gpu
from workbench.strategies import gpu_blocks
from workbench.strategies.attention import attend_block

#: Heads and channels of DiT-XL/2.
HEADS, CHANNELS = 16, 72
TOKENS = 65_536


def median_s(run: Callable[[], object]) -> float:
    """After one that warms up."""
    run()
    return statistics.median(took_on_gpu(run) for _ in range(9))


def most_bytes(run: Callable[[], object]) -> int:
    """What a call allocates at its peak."""
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated() - before


def blocks(dtype: torch.dtype, length: int, causal: bool) -> None:
    """Print a line for one block."""
    shape = 1, HEADS, length, CHANNELS
    q, k, v, grad = (torch.randn(shape, device="cuda").to(dtype) for _ in range(4))
    out, lse = gpu_blocks.forward(q, k, v, causal, None)
    lse = lse.float()
    runs = {
        "forward": lambda: gpu_blocks.forward(q, k, v, causal, None),
        "backward": lambda: gpu_blocks.backward(grad, q, k, v, out, lse, causal, None),
    }
    fused = {name: (median_s(run), most_bytes(run)) for name, run in runs.items()}
    with patch.object(gpu_blocks, "fused_kernel", lambda *block: ""):
        plain = {name: (median_s(run), most_bytes(run)) for name, run in runs.items()}
    for name in runs:
        (took, held), (longer, more) = fused[name], plain[name]
        print(f"{dtype}, {length} tokens, {'causal' if causal else 'full'}, {name}: "
              f"{1e3 * took:.3f} ms; written out {longer / took:.1f} times as long, "
              f"{more / held:.0f} times the memory of {held / 1e6:.0f} MB", flush=True)  # fmt: skip


def short(length: int) -> None:
    """Print the forward and backward of as many tokens, in sequences of this length."""
    shape = TOKENS // length, HEADS, length, CHANNELS
    new = (torch.randn(shape, device="cuda").bfloat16() for _ in range(4))
    q, k, v, grad = (t.requires_grad_() for t in new)
    with torch.no_grad():
        forward_s = median_s(lambda: attend_block(q, k, v))
    out = attend_block(q, k, v)[0]
    given = {"inputs": (q, k, v), "grad_outputs": grad, "retain_graph": True}
    backward_s = median_s(lambda: torch.autograd.grad(out, **given))
    a_head = 1e9 / (shape[0] * HEADS)
    print(f"{TOKENS} tokens in sequences of {length}: forward {1e3 * forward_s:.3f} ms, "
          f"{a_head * forward_s:.1f} ns a head of a sequence; backward {1e3 * backward_s:.3f} "
          f"ms, {a_head * backward_s:.1f} ns", flush=True)  # fmt: skip


def main() -> None:
    """Print the tables."""
    if not torch.cuda.is_available():
        print("there is no GPU here")
        return
    print(torch.cuda.get_device_name(), torch.__version__)
    for dtype in (torch.bfloat16, torch.float32):
        for length in (1024, 4096):
            for causal in (False, True):
                blocks(dtype, length, causal)
    for length in (16, 64, 128, 129, 256, 257, 1024, 4096):
        short(length)


if __name__ == "__main__":
    main()
