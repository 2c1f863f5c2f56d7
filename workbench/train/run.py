"""Train on local processes or under torchrun, with progress, a way to stop, and checkpoints."""

import os
import statistics
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from workbench.collectives import Collective, Phase
from workbench.dims import check_count
from workbench.launch import run_fake, run_local, run_torchrun
from workbench.meter import Meter
from workbench.outcome import FakedStep
from workbench.strategies import Strategy
from workbench.train.checkpoint import start_from
from workbench.train.denoiser import first_weights
from workbench.train.digits import Clips, digit_images
from workbench.train.generation import generate, held_out_loss
from workbench.train.task import TrainTask
from workbench.train.trainer import Report, Trainer, rank_train

#: How often the launching process looks for news of the ranks [s].
POLL_S = 0.1


@dataclass(frozen=True)
class Training:
    """What came of a run.

    Attributes
    ----------
    task, strategy, p : TrainTask, str, int
        What was run.
    losses : tuple of float
        Of every step since the first, also of those before a checkpoint.
    weights : dict of str to Tensor
        Whole logical weights.
    logs : tuple of list of Collective
        What rank 0 communicated in one step of each bucket. Every rank's log is equal to it.
    step_seconds : tuple of float
        Of this call's steps, on rank 0 [s].
    stopped : bool
        Whether it was stopped before its last step.
    mesh : mapping of str to int, or None
        Ranks along each axis, if it ran on a mesh.
    """

    task: TrainTask
    strategy: str
    p: int
    losses: tuple[float, ...]
    weights: dict[str, Tensor] = field(repr=False)
    logs: tuple[list[Collective], ...] = field(repr=False)
    step_seconds: tuple[float, ...] = field(repr=False)
    stopped: bool = False
    mesh: Mapping[str, int] | None = None

    @property
    def seconds(self) -> float:
        """One step, the median [s]; NaN if this call made none."""
        return statistics.median(self.step_seconds) if self.step_seconds else float("nan")

    def bytes_of(self, *phases: Phase) -> float:
        """Bytes that one rank sends in a step in these phases, the mean over the buckets."""
        sent = [sum(r.sent_bytes for r in log if r.phase in phases) for log in self.logs]
        return statistics.fmean(sent) if sent else 0.0

    @property
    def sent_bytes(self) -> float:
        """Forward and backward of a step; the weights' gradients are apart."""
        return self.bytes_of("forward", "backward")

    @property
    def gradient_bytes(self) -> float:
        """To sum the gradients of replicated weights in a step."""
        return self.bytes_of("gradients")

    @property
    def tokens_per_s(self) -> float:
        """Tokens of all clips, over the median step [1/s]."""
        tokens = statistics.fmean(spec.batch * spec.tokens for spec in self.task.specs)
        return tokens / self.seconds

    @cached_property
    def samples(self) -> Clips:
        """Four clips that the model draws; `generate` draws more."""
        return generate(self.task, self.weights)

    @cached_property
    def held_out(self) -> tuple[float, float]:
        """Loss on digits that are never trained on, before the first step and now."""
        both = (first_weights(self.task), self.weights)
        return tuple(held_out_loss(self.task, weights) for weights in both)


def train(
    task: TrainTask,
    strategy: str | type[Strategy] = "dsp",
    p: int = 4,
    *,
    mesh: Mapping[str, int] | None = None,
    checkpoint_dir: str | os.PathLike | None = None,
    checkpoint_every: int = 50,
    resume: bool = True,
    on_step: Report | None = None,
    threads: int = 1,
    timeout_s: float = 3600.0,
) -> Training:
    """Train on ``p`` processes of this machine.

    Parameters
    ----------
    task : TrainTask
        What to train.
    strategy, p, mesh
        As for `run_step`, without an axis ``"data"``. The losses don't depend on them.
    checkpoint_dir : path or None
        Where checkpoints are left: each ``checkpoint_every`` steps, and at the end. Whatever
        happens, no more is lost than what came after the last one.
    resume : bool
        Go on from the newest checkpoint there, whichever strategy and ``p`` have made it.
    on_step : callable or None
        ``on_step(step, loss)``, called in a thread of this process soon after each step. If it
        returns True, all ranks stop after the same step, and what was trained is kept.
    threads, timeout_s
        As for `run_local`.

    Raises
    ------
    ValueError
        If the strategy can't run this, or the checkpoint is of another task; before the launch.
    RankError, TimeoutError
        As `run_local`.

    Notes
    -----
    An interrupt (Ctrl-C, or a notebook's) stops all ranks after the same step, too: the result is
    what was trained so far, and a checkpoint is left.
    """
    cls, options = _prepare(task, strategy, p, mesh, checkpoint_dir, checkpoint_every, resume)
    images = digit_images()
    with tempfile.TemporaryDirectory(prefix="workbench-train-") as name:
        report = FileReport(Path(name))
        with _watched(report, on_step):
            launch = partial(run_local, p=p, threads=threads, timeout_s=timeout_s)
            ranks = _until_interrupted(
                report,
                lambda: launch(
                    lambda _, comm: rank_train(comm, task, cls, images, report, **options)
                ),
            )
    return _result(task, cls, mesh, ranks)


def torchrun_train(
    task: TrainTask,
    strategy: str | type[Strategy] = "dsp",
    *,
    mesh: Mapping[str, int] | None = None,
    checkpoint_dir: str | os.PathLike | None = None,
    checkpoint_every: int = 50,
    resume: bool = True,
    on_step: Report | None = None,
) -> Training | None:
    """`train` on the ranks that torchrun has started; the result on rank 0, else None.

    Checkpoints need a folder that all nodes see. ``on_step`` is called on rank 0, in its process.
    """
    p = int(os.environ["WORLD_SIZE"])
    cls, options = _prepare(task, strategy, p, mesh, checkpoint_dir, checkpoint_every, resume)
    images, report = digit_images(), on_step or _no_report
    ranks = run_torchrun(lambda rank, comm: rank_train(comm, task, cls, images, report, **options))
    return None if ranks is None else _result(task, cls, mesh, ranks)


def fake_training(
    task: TrainTask,
    strategy: str | type[Strategy],
    p: int,
    mesh: Mapping[str, int] | None = None,
) -> tuple[FakedStep, ...]:
    """Go through one step of each bucket on meta tensors; nothing is sent, any ``p``."""
    cls = task.check(strategy, p, mesh)

    def on_rank(rank, comm):
        trainer, faked = Trainer(comm, task, cls, None, torch.device("meta"), mesh), []
        for step, model in enumerate(trainer.models):
            comm.log.clear()
            with Meter(trainer.weights.values()) as meter:
                trainer.gradients(step)
            shard, log = model.strategy.start.split, list(comm.log)
            faked.append(
                FakedStep(cls.name, p, task.dtype, shard, log, meter.flops, meter.peak_bytes)
            )
        return tuple(faked)

    return run_fake(on_rank, p)


@dataclass(frozen=True)
class FileReport:
    """A `Report` that crosses processes by files in the run's folder."""

    folder: Path

    @property
    def progress(self) -> Path:
        return self.folder / "progress"

    @property
    def stop(self) -> Path:
        return self.folder / "stop"

    def __call__(self, step: int, loss: float) -> bool:
        with self.progress.open("a") as file:
            file.write(f"{step} {loss!r}\n")
        return self.stop.exists()


def _until_interrupted(report: FileReport, launch: Callable[[], list]) -> list:
    """The ranks' results; an interrupt asks the ranks to stop, and waits for them."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(launch)
        try:
            return done.result()
        except KeyboardInterrupt:
            report.stop.touch()
            return done.result()


@contextmanager
def _watched(report: FileReport, on_step: Report | None) -> Iterator[None]:
    """Pass on what the ranks write, to ``on_step`` in a thread, until the run is over."""
    if on_step is None:
        yield
        return
    report.progress.touch()
    over, errors = threading.Event(), []
    watcher = threading.Thread(target=_watch, args=(report, on_step, over, errors), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
    if errors:
        raise errors[0]


def _watch(report: FileReport, on_step: Report, over: threading.Event, errors: list) -> None:
    try:
        with report.progress.open() as news:
            last = False
            while not last:
                last = over.wait(POLL_S)
                for line in news:
                    step, loss = line.split()
                    if on_step(int(step), float(loss)):
                        report.stop.touch()
    except Exception as error:
        errors.append(error)
        report.stop.touch()


def _prepare(task, strategy, p, mesh, checkpoint_dir, every, resume):
    cls = task.check(strategy, p, mesh)
    check_count("checkpoint_every", every)
    folder = None if checkpoint_dir is None else Path(checkpoint_dir).absolute()
    if folder is not None and folder.exists() and not folder.is_dir():
        raise ValueError(f"checkpoint_dir={folder} is a file; give a folder, new or not")
    start = start_from(folder, task, resume)
    return cls, {"mesh": mesh, "start": start, "folder": folder, "every": every}


def _no_report(step: int, loss: float) -> bool:
    return False


def _result(task, cls, mesh, ranks) -> Training:
    first = ranks[0]
    assert all(rank["losses"] == first["losses"] for rank in ranks), "the ranks' losses differ"
    assert all(rank["logs"] == first["logs"] for rank in ranks), "the ranks' logs differ"
    return Training(
        task, cls.name, len(ranks), tuple(first["losses"]), first["weights"],
        tuple(first["logs"]), tuple(first["seconds"]), first["stopped"], mesh,
    )  # fmt: skip
