"""Times of this machine: what its ranks are asked to do, and what came of it."""

import os
import statistics
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist

from workbench.calibration import kernels, links
from workbench.calibration.kernels import Sizes
from workbench.collectives import sent_bytes
from workbench.comm import Comm
from workbench.dims import check_count
from workbench.launch import local_device, run_local
from workbench.step import DTYPES

#: How often a progress bar looks how far the ranks are [s].
_LOOK_S = 0.2


class Row(NamedTuple):
    """Repeated times of one thing: its kind, how much of it (flops, bytes, launches), seconds."""

    kind: str
    size: float
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class Measured:
    """What was timed on this machine.

    Attributes
    ----------
    p : int
        Ranks that worked together.
    dtype, backend, device : str
        Of the tensors; of the ranks' group; what a rank computes on.
    memory_bytes : int
        What a rank has: its GPU's memory, or an equal share of the machine's.
    alone, together : tuple of Row
        Kernels: of one rank while no other works, and of each of ``p`` at once. Sizes are flops,
        bytes or launches; times are means over the ranks, as those of ``links``.
    links : tuple of Row
        Collectives of ``p`` ranks, waiting for the last one included. Sizes are bytes that a rank
        sends.
    overlaps : tuple of float
        How much of a transfer hid behind products, repeat by repeat; mean of the ranks.
    waits : tuple of float
        What a step on a GPU takes besides its kernels, repeat by repeat [s]; on a CPU none, since
        there the launches say it.
    """

    p: int
    dtype: str
    backend: str
    device: str
    memory_bytes: int
    alone: tuple[Row, ...]
    together: tuple[Row, ...]
    links: tuple[Row, ...]
    overlaps: tuple[float, ...] = ()
    waits: tuple[float, ...] = ()


def measure(
    p: int | None = None, *, dtype: str = "float32", quick: bool = False, progress: bool = True
) -> Measured:
    """Take the times of which `calibrate` makes a cluster; its arguments and its errors."""
    p = _workers() if p is None else p
    check_count("p (the number of ranks)", p)
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}; got {dtype!r}")
    gpus = torch.cuda.device_count()
    if 0 < gpus < p:
        raise ValueError(
            f"p={p} ranks need a GPU each, and here {gpus} can be seen: take p={gpus} or fewer, or "
            "measure the cores, with CUDA_VISIBLE_DEVICES set to nothing"
        )
    if gpus and dtype == "float64":
        raise ValueError("no fused attention of a GPU takes float64: take float32 or bfloat16")
    sizes = kernels.sizes_of(quick, gpu=gpus > 0)
    with _progress(sizes.count(p), progress) as tick:
        of_rank = partial(_on_rank, sizes=sizes, dtype=dtype, tick=tick)
        (alone,) = run_local(of_rank, 1)
        ranks = run_local(of_rank, p) if p > 1 else [alone]
    first = ranks[0]
    return Measured(
        p, dtype, first.backend, first.device, first.memory_bytes // (1 if first.own else p),
        tuple(alone.kernels), _means([rank.kernels for rank in ranks]),
        _means([rank.links for rank in ranks]),
        *(tuple(map(statistics.fmean, zip(*each, strict=True)))
          for each in ([rank.overlaps for rank in ranks], [rank.waits for rank in ranks])),
    )  # fmt: skip


class _Rank(NamedTuple):
    """What one rank brings back; ``own`` says that it has its memory for itself."""

    kernels: list[Row]
    links: list[Row]
    overlaps: list[float]
    waits: list[float]
    backend: str
    device: str
    memory_bytes: int
    own: bool


def _on_rank(rank: int, comm: Comm, sizes: Sizes, dtype: str, tick: Callable[[], None]) -> _Rank:
    sent, hidden = [], []
    step = tick if rank == 0 else lambda: None
    made = list(kernels.chains(sizes, dtype))
    times = kernels.timed(made, sizes.repeats, partial(dist.barrier, comm.group), step)
    done = [Row(c.kind, c.work, tuple(t)) for c, t in zip(made, times, strict=True)]
    del made  # some GB on a GPU, which the large step below needs
    if comm.size > 1:
        even = links.sizes_for(comm.size, sizes.messages)
        asked = [(kind, size) for kind in links.KINDS for size in even]
        for (kind, size), t in zip(
            asked, links.timed(asked, comm, sizes.transfers, step), strict=True
        ):
            sent.append(Row(kind, sent_bytes(kind, size, comm.size), tuple(t)))
        hidden = links.overlaps(comm, even[-1], sizes.repeats)
        step()
    device, backend = local_device(), dist.get_backend(comm.group)
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        waits, own = kernels.waits(dtype, sizes.repeats), found.total_memory
        return _Rank(done, sent, hidden, waits, backend, found.name, own, own=True)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return _Rank(done, sent, hidden, [], backend, "a core", memory, own=False)


def _means(ranks: list[list[Row]]) -> tuple[Row, ...]:
    """The same rows of all ranks as one each, repeat by repeat their mean.

    A step is as long as a mean rank computes, sends and waits.
    """
    return tuple(
        rows[0]._replace(
            seconds=tuple(map(statistics.fmean, zip(*(r.seconds for r in rows), strict=True)))
        )
        for rows in zip(*ranks, strict=True)
    )


def _workers() -> int:
    """GPUs, or the cores that this process may use."""
    if torch.cuda.device_count():
        return torch.cuda.device_count()
    may = getattr(os, "sched_getaffinity", None)
    return len(may(0)) if may else os.cpu_count() or 1


@contextmanager
def _progress(total: int, shown: bool) -> Iterator[Callable[[], None]]:
    """A bar, and what a rank calls, in its own process, for each thing that is done."""
    with tempfile.TemporaryDirectory(prefix="workbench-") as folder:
        file = Path(folder, "done")
        file.touch()
        tick, over = partial(_add_one, str(file)), threading.Event()
        watch = threading.Thread(target=_watch, args=(file, total, over), daemon=True)
        if shown:
            watch.start()
        try:
            yield tick
        finally:
            over.set()
            if shown:
                watch.join()


def _add_one(file: str) -> None:
    with Path(file).open("ab") as done:
        done.write(b".")


def _watch(file: Path, total: int, over: threading.Event) -> None:
    try:
        from tqdm.auto import tqdm
    except ModuleNotFoundError:  # it comes with the notebooks; nothing depends on it
        return
    with tqdm(total=total, desc="calibrating") as bar:
        while not over.wait(_LOOK_S):
            bar.update(file.stat().st_size - bar.n)
        bar.update(file.stat().st_size - bar.n)
