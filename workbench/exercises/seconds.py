"""Exercises on seconds: of an exchange, of a kernel, and of a ring's hop that computing hides."""

from workbench.cluster import Cluster, Device, Link
from workbench.exercises.checking import Case, Exercise, by_cases
from workbench.exercises.many_dims import words
from workbench.hiding import round_the_ring
from workbench.timing import kernel_seconds
from workbench.traffic import Sent
from workbench.wire import collective_seconds
from workbench.work import Kernel


def _exchanges(rng):
    cases = []
    for p in (2, 4, 8, 8):
        given = {
            "input_bytes": p * 10**5 * rng.randint(1, 900), "p": p,
            "alpha_s": 1e-6 * rng.randint(5, 40), "bytes_per_s": 1e9 * rng.randint(20, 400),
        }  # fmt: skip
        link = Link("wire", given["bytes_per_s"], alpha_s=given["alpha_s"])
        node = Cluster("node", Device("any", 1, 1.0), gpus_per_node=8, intra=link)
        expected = collective_seconds("all_to_all", given["input_bytes"], p, node)
        cases.append(Case(tuple(given.values()), expected, words(given), p))
    return cases


check_exchange_seconds = Exercise(
    "Write f(input_bytes, p, alpha_s, bytes_per_s), which returns the seconds of one all-to-all in "
    "one node. Each rank hands over so many bytes; its link has this latency and this speed.",
    (
        "Alpha is paid once, whatever the size. Then bytes travel at the link's speed.",
        "A rank keeps one of the p chunks of its buffer; the others travel.",
    ),
    by_cases(
        _exchanges,
        {
            "A rank sends nothing to itself.": lambda n, p, a, b: a + n / b,
            "The latency is missing.": lambda n, p, a, b: n * (p - 1) / p / b,
        },
    ),
)


def _kernels(rng):
    cases = []
    for intensity in (2, 40, 900, 3000):
        size = 10**6 * rng.randint(2, 900)
        rate, memory = 1e12 * rng.randint(200, 900), 1e9 * rng.randint(1000, 4000)
        device = Device("any", 1, rate, matmul_flops_per_s=rate, memory_bytes_per_s=memory)
        kernel = Kernel("matmul", "forward", 0, intensity * size, size, 1)
        given = (kernel.flops, size, rate, memory)
        named = zip(("flops", "bytes", "flops_per_s", "bytes_per_s"), given, strict=True)
        expected = kernel_seconds(kernel, device)
        bound = "the memory is what binds" if size / memory == expected else ""
        cases.append(Case(given, expected, words(dict(named)), note=bound))
    return cases


check_kernel_seconds = Exercise(
    "Write f(flops, bytes, flops_per_s, bytes_per_s), which returns the seconds of one kernel by "
    "the roofline.",
    (
        "A kernel computes and moves bytes at the same time.",
        "It is done when both are done: which of the two decides?",
    ),
    by_cases(
        _kernels,
        {
            "It computes while it moves bytes: the two are not one after the other.": (
                lambda f, n, rate, memory: f / rate + n / memory
            ),
            "Both have to be done, not the first of them.": (
                lambda f, n, rate, memory: min(f / rate, n / memory)
            ),
        },
    ),
)


def _hops(_rng):
    cases = []
    for p, hop, block in ((2, 9, 4), (4, 7, 5), (8, 3, 8), (8, 8, 2)):
        hop_s, block_s = hop * 1e-3, block * 1e-3
        sent = Sent("ring_shift", "sp", "forward", 0, 1, 1, p - 1)
        expected, _ = round_the_ring(sent, hop_s, p, 1, {"forward": p * block_s})
        given = {"p": p, "hop_s": hop_s, "block_s": block_s}
        note = "a block takes longer than a hop" if block > hop else ""
        cases.append(Case(tuple(given.values()), expected, words(given), p, note))
    return cases


check_exposed_hops = Exercise(
    "Write f(p, hop_s, block_s), which returns the exposed seconds of one ring, forward: each hop "
    "starts together with a block of attention and takes hop_s; each block takes block_s.",
    (
        "While a hop is on its way, a block is computed. What is left of the hop after that?",
        "A rank needs p blocks; one of them it has. And nothing can be exposed for less than 0 s.",
    ),
    by_cases(
        _hops,
        {
            "One of the p blocks needs no hop.": lambda p, hop, block: p * max(0.0, hop - block),
            "That is all of the hops; blocks hide a part.": lambda p, hop, block: (p - 1) * hop,
        },
    ),
)
