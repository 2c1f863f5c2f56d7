"""Memory on a GPU: the closed form against the most that torch's allocator gave out.

    python benchmarks/memory.py

Blocks of STDiT-XL/2 on one GPU. What the closed form leaves out is scratch memory of kernels (of
cuBLAS; of attention's backward, which sums its queries' gradients in float32) and rounding.
"""

from dataclasses import replace

import torch

import workbench as wb
from workbench.comm import Comm
from workbench.rank import RankStep

#: Time, space, layers.
SIZES = [(16, 1024, 4), (80, 1024, 4), (24, 3600, 4), (16, 1024, 28)]
MODES = [
    ("bfloat16", "none", 1), ("bfloat16", "selective", 1), ("bfloat16", "block", 1),
    ("float32", "none", 1), ("bfloat16", "none", 2),
]  # fmt: skip


def most_allocated(model, dtype: str, checkpoint: str, accumulate: int) -> int:
    """The peak of a step after one that warms up [bytes]."""
    device, single = torch.device("cuda"), wb.STRATEGIES["single"]
    step = RankStep(Comm(1), model, single, dtype, 0, None, device,
                    checkpoint=checkpoint, accumulate=accumulate)  # fmt: skip
    step.run()
    step.reset()
    torch.cuda.reset_peak_memory_stats()
    step.run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def main() -> None:
    """Print a line for each model and each way to save memory."""
    if not torch.cuda.is_available():
        print("there is no GPU here; on a CPU the tests hold the closed form to the byte")
        return
    print(torch.cuda.get_device_name(), torch.__version__)
    for time, space, layers in SIZES:
        for dtype, checkpoint, accumulate in MODES:
            model = replace(wb.PRESETS["stdit-xl-2"], dims={"time": time, "space": space},
                            num_layers=layers, batch=accumulate)  # fmt: skip
            memory = {"dtype": dtype, "checkpoint": checkpoint, "accumulate": accumulate}
            said = wb.closed_form_memory(model, "single", p=1, **memory).peak_bytes
            found = most_allocated(model, **memory)
            print(f"{time}x{space}, {layers} layers, {dtype}, checkpoint {checkpoint}, in "
                  f"{accumulate} parts: closed form {said / 1e9:.3f} GB, allocated "
                  f"{found / 1e9:.3f} GB, ratio {found / said:.3f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
