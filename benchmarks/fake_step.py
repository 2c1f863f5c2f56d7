"""How long a faked step takes, by ranks and strategy, as a ratio to p = 8."""

import resource
import statistics
import time

import workbench as wb

#: STDiT-XL/2's width and depth; as many heads as ranks where a strategy cuts the heads.
SIZES = {"dims": {"time": 1024, "space": 1024}, "stages": ("space", "time"), "num_layers": 28}
FEW_HEADS = wb.TransformerSpec(**SIZES, d_model=1152, num_heads=16)
MANY_HEADS = wb.TransformerSpec(**SIZES, d_model=8192, num_heads=1024)


def seconds_of(spec, name: str, p: int) -> float:
    """Seconds of one faked step."""
    started = time.perf_counter()
    wb.fake_step(spec, name, p=p)
    return time.perf_counter() - started


def main() -> None:
    """Print the table."""
    seconds_of(wb.PRESETS["toy-video"], "ring", 2)  # imports are no part of it
    for name in ("dsp", "ring", "ulysses", "megatron-sp", "megatron-tp"):
        spec = FEW_HEADS if name in ("dsp", "ring") else MANY_HEADS
        base = None
        for p in (8, 128, 1024):
            rounds = 1 if (name, p) == ("ring", 1024) else 3
            duration = statistics.median(seconds_of(spec, name, p) for _ in range(rounds))
            base = base or duration
            print(f"{name:>12}, p = {p:>4}: {duration:6.2f} s, {duration / base:5.1f} of p = 8")
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"most memory of this process: {peak_kb / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
