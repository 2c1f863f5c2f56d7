"""How long collectives take here: each kind, each size, all ranks at once."""

import time
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from workbench.collectives import SENT_PER_INPUT_BYTE
from workbench.comm import Comm
from workbench.launch import local_device
from workbench.transfer import Pair, send_and_receive

#: Collectives that steps make.
KINDS = tuple(SENT_PER_INPUT_BYTE)
#: Tokens and width of an MLP that keeps a core busy for some milliseconds, as steps do in between.
_TOKENS, _WIDTH = 2048, 128


def collective(kind: str, comm: Comm, input_bytes: int) -> Callable[[], object]:
    """One collective as `workbench.comm.Comm` sends it, on bytes of no meaning, without copies."""
    send = torch.ones(comm.size, input_bytes // 4 // comm.size, device=local_device())
    received, group = torch.empty_like(send), comm.group
    if kind == "all_to_all":
        return lambda: dist.all_to_all_single(received, send, group=group)
    if kind == "all_reduce":
        return lambda: dist.all_reduce(send, group=group)
    if kind == "all_gather":
        whole = send.new_empty(comm.size * send.numel())
        return lambda: dist.all_gather_single(whole, send.flatten(), group=group)
    if kind == "reduce_scatter":
        return lambda: _summed(send, received, group)
    beside = Pair(send, (comm.rank + 1) % comm.size, received, (comm.rank - 1) % comm.size)
    return lambda: [request.wait() for request in send_and_receive([beside], group)]


def _summed(send: Tensor, received: Tensor, group: dist.ProcessGroup) -> Tensor:
    """As `Comm` does it: gloo's own reduce-scatter sends as much as an all-reduce."""
    if dist.get_backend(group) == "gloo":
        dist.all_to_all_single(received, send, group=group)
        return received.sum(0)
    dist.reduce_scatter_single(received[0], send.flatten(), group=group)
    return received[0]


def timed(
    asked: Sequence[tuple[str, int]], comm: Comm, repeats: int, tick: Callable[[], None]
) -> list[list[float]]:
    """Seconds of each (kind, input bytes) on this rank [s], round after round.

    As in a step each comes after some computing, from which no two ranks come at the same time, and
    ranks meet nowhere else: a rank's time has its waiting for the last one in it. A first round
    warms up. ``tick`` is called after each round.
    """
    x = torch.ones(_TOKENS, _WIDTH, device=local_device())
    up, down = x.new_ones(_WIDTH, 4 * _WIDTH), x.new_ones(4 * _WIDTH, _WIDTH)
    runs = [collective(kind, comm, size) for kind, size in asked]
    found: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats + 1):
        for times, run in zip(found, runs, strict=True):
            F.gelu(x @ up) @ down
            _fence()
            started = time.perf_counter()
            run()
            _fence()
            times.append(time.perf_counter() - started)
        tick()
    return [times[1:] for times in found]


def overlaps(comm: Comm, input_bytes: int, repeats: int) -> list[float]:
    """How much of a transfer went on while its rank computed, for about as long: 0 to 1.

    With c seconds for the transfer, m for the products and b for both at once, what was saved,
    c + m - b, over the most that could be, the smaller of c and m.
    """
    send = torch.ones(max(1, input_bytes // 4), device=local_device())
    received = torch.empty_like(send)
    pair = Pair(send, (comm.rank + 1) % comm.size, received, (comm.rank - 1) % comm.size)
    x = torch.ones(128, 128, device=send.device)

    def both(transfers: int, products: int) -> float:
        dist.barrier(comm.group)
        started = time.perf_counter()
        requests = send_and_receive([pair], comm.group) if transfers else []
        for _ in range(products):
            torch.mm(x, x)
        for request in requests:
            request.wait()
        _fence()
        return time.perf_counter() - started

    both(1, 1)
    long = torch.tensor([both(1, 0) / (both(0, 100) / 100)])
    dist.all_reduce(long, dist.ReduceOp.MAX, group=comm.group)  # ranks have to agree
    products, found = max(1, int(long.item())), []
    for _ in range(repeats):
        c, m, b = both(1, 0), both(0, products), both(1, products)
        found.append(min(1.0, max(0.0, (c + m - b) / min(c, m))))
    return found


def _fence() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def sizes_for(p: int, sizes: Sequence[int]) -> list[int]:
    """The sizes, each made a multiple of what ``p`` ranks can share out evenly [bytes]."""
    return [-(-size // (4 * p)) * 4 * p for size in sizes]
