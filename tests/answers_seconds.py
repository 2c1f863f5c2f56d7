"""Right and planted wrong answers to the exercises on seconds."""

#: check -> (the right answer, wrong ones).
SECONDS_ANSWERS = {
    "exchange_seconds": (
        lambda n, p, alpha, rate: alpha + n * (p - 1) / p / rate,
        lambda n, p, alpha, rate: alpha + n / rate,
        lambda n, p, alpha, rate: n * (p - 1) / p / rate,
        lambda n, p, alpha, rate: (p - 1) * (alpha + n / p / rate),
        lambda n, p, alpha, rate: alpha + n * (p - 1) / rate,
    ),
    "kernel_seconds": (
        lambda flops, size, rate, memory: max(flops / rate, size / memory),
        lambda flops, size, rate, memory: flops / rate + size / memory,
        lambda flops, size, rate, memory: min(flops / rate, size / memory),
        lambda flops, size, rate, memory: flops / rate,
    ),
    "exposed_hops": (
        lambda p, hop, block: (p - 1) * max(0.0, hop - block),
        lambda p, hop, block: p * max(0.0, hop - block),
        lambda p, hop, block: (p - 1) * hop,
        lambda p, hop, block: (p - 1) * (hop - block),
    ),
}
