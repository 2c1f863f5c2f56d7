"""What it costs to start ranks: the first call loads torch once, later ones fork."""

import statistics
import time

from workbench.launch import run_local


def nothing(rank, comm):
    """Return at once."""
    return rank


def seconds_of(p: int, **options) -> float:
    """Seconds of one whole call."""
    started = time.perf_counter()
    run_local(nothing, p, **options)
    return time.perf_counter() - started


def main() -> None:
    """Print the table."""
    first = seconds_of(4)
    later = {p: statistics.median(seconds_of(p) for _ in range(9)) for p in (1, 2, 4, 8)}
    spawned = statistics.median(seconds_of(4, start_method="spawn") for _ in range(3))
    print(f"first call, 4 ranks: {first:.2f} s")
    for p, duration in later.items():
        print(f"later call, {p} ranks: {duration:.3f} s (median of 9)")
    print(
        f"start_method='spawn', 4 ranks: {spawned:.2f} s, {spawned / later[4]:.0f}x the fork server"
    )


if __name__ == "__main__":
    main()
