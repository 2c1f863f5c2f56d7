"""One rank's share of a training run: its part of the model, its steps, its state."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from workbench.comm import Comm
from workbench.launch import local_device
from workbench.layout import take_shard, trim_shard
from workbench.mesh import Mesh
from workbench.rank import own_comm
from workbench.strategies import Strategy, choose_shard, mesh_of, ranks_of
from workbench.train.checkpoint import load, save
from workbench.train.denoiser import Denoiser, first_weights, layout_of
from workbench.train.digits import Images
from workbench.train.task import OPTIMIZERS, Batch, TrainTask, batch_of

#: ``report(step, loss)`` is called on rank 0 after each step; True asks all ranks to stop.
Report = Callable[[int, float], bool | None]


class Trainer:
    """One rank's models, one for each bucket over the same weights, and their optimizer.

    Attributes
    ----------
    losses : list of float
        The whole loss of each step so far.
    weights : dict of str to Parameter
        This rank's part, by logical name.
    """

    def __init__(
        self, comm: Comm, task: TrainTask, cls: type[Strategy], images: Images | None,
        device: torch.device, mesh: Mapping[str, int] | None = None,
    ):  # fmt: skip
        self.comm, self.task, self.images, self.device = comm, task, images, device
        self.losses: list[float] = []
        logical = first_weights(task, device.type)
        self.models, mesh = [], mesh_of(cls, comm.size, mesh)
        (ranks, _), grid = ranks_of(cls, comm.size, mesh), Mesh(comm, mesh) if mesh else None
        for spec in task.specs:
            shard = choose_shard(cls, spec, ranks, spec.branches, None)
            strategy = cls(own_comm(cls, comm, grid), spec, shard)
            self.models.append(Denoiser(spec, strategy, logical))
            share_weights(self.models[0], self.models[-1])
        self.strategy = self.models[0].strategy
        self.weights = dict(self.models[0].named_weights())
        self.optimizer = OPTIMIZERS[task.optimizer](self.weights.values(), lr=task.lr)

    def step(self, ask_stop: bool = False) -> bool:
        """Make one step on all ranks; True on all of them if rank 0 asks to stop."""
        self.comm.log.clear()
        self.optimizer.zero_grad()
        part = self.gradients(len(self.losses))
        self.optimizer.step()
        loss, stopped = self._agree(part, ask_stop)
        self.losses.append(loss)
        return stopped

    def gradients(self, step: int) -> Tensor:
        """Forward, backward and the gradients' sum; returns this rank's part of the loss."""
        model = self.models[self.task.bucket_of(step)]
        noisy, moment, target = self._batch(step)
        said, layout = model(noisy, moment)
        layout = layout_of(target, layout)
        along = model.strategy.along(layout)
        place = (layout, along.rank, along.size)
        missed = trim_shard(said, *place) - trim_shard(take_shard(target, *place), *place)
        loss = missed.square().sum() / target.numel()
        loss.backward()
        if model.strategy.start.split is not None:
            cut = model.strategy.cut_dim
            self.comm.sum_gradients(w.grad for n, w in self.weights.items() if cut(n) is None)
        # A whole stream is on all ranks alike: rank 0 speaks for them.
        return loss.detach() * (layout.split is not None or self.comm.rank == 0)

    def _batch(self, step: int) -> Batch:
        if self.device.type != "meta":
            batch = batch_of(self.task, step, self.images)
            return Batch(*(part.to(self.device) for part in batch))
        spec, dtype = self.task.spec_of(step), getattr(torch, self.task.dtype)
        shape = (spec.batch, *spec.dims.values(), self.task.patch**2)
        shapes = (shape, shape[:1], shape)
        return Batch(*(torch.empty(s, dtype=dtype, device="meta") for s in shapes))

    def _agree(self, part: Tensor, ask_stop: bool) -> tuple[float, bool]:
        """Sum the parts of the loss and hear whether rank 0 asks to stop. Not logged."""
        both = torch.tensor([part.item(), ask_stop], dtype=torch.float64, device=self.device)
        if self.comm.size > 1:
            dist.all_reduce(both, group=self.comm.group)
        return both[0].item(), bool(both[1])

    def state(self) -> dict[str, Tensor]:
        """All that a run needs to go on: whole logical weights, moments of each, the losses.

        The same on every rank, and for every strategy and number of ranks.
        """
        state = {"losses": torch.tensor(self.losses, dtype=torch.float64)}
        state |= {f"weights.{name}": weight for name, weight in self.whole_weights().items()}
        for name, weight in self.weights.items():
            for key, value in self.optimizer.state[weight].items():
                state[f"{key}.{name}"] = self._whole(name, value) if value.dim() else value
        return {name: value.cpu() for name, value in state.items()}

    def whole_weights(self) -> dict[str, Tensor]:
        """The logical weights, put together from the ranks' parts."""
        return {n: self._whole(n, weight.detach()).cpu() for n, weight in self.weights.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state`, whoever has made it."""
        self.losses = state["losses"].tolist()
        scalars = {name: value for name, value in state.items() if not value.dim()}
        whole = {name: value for name, value in state.items() if value.dim()}
        for full, value in {**self.strategy.shard_weights(whole), **scalars}.items():
            key, _, name = full.partition(".")
            if key == "weights":
                self.weights[name].data.copy_(value)
            elif name:  # torch wants the optimizer's own count of steps on the CPU
                place = self.device if value.dim() else "cpu"
                self.optimizer.state[self.weights[name]][key] = value.to(place)

    def _whole(self, name: str, part: Tensor) -> Tensor:
        dim = self.strategy.cut_dim(name)
        if dim is None or self.comm.size == 1:
            return part
        parts = [torch.empty_like(part) for _ in range(self.comm.size)]
        dist.all_gather(parts, part.contiguous(), group=self.comm.group)
        return torch.cat(parts, dim)


def share_weights(model: nn.Module, other: nn.Module) -> None:
    """Give ``other`` the parameters of ``model``, which is built alike."""
    for name, parameter in list(model.named_parameters()):
        owner, _, leaf = name.rpartition(".")
        setattr(other.get_submodule(owner), leaf, parameter)


def rank_train(
    comm: Comm,
    task: TrainTask,
    cls: type[Strategy],
    images: Images,
    report: Report,
    mesh: Mapping[str, int] | None = None,
    start: Path | None = None,
    folder: Path | None = None,
    every: int = 50,
) -> dict[str, Any]:
    """One rank's share of `train`, for use inside a function that `run_local` runs.

    Parameters
    ----------
    report : callable
        As `Report`; rank 0's is called.
    mesh : mapping of str to int, optional
        As of `train`.
    start, folder : Path or None
        The checkpoint to begin with; where to leave new ones.
    every : int
        Steps from one checkpoint to the next. There is one at the end in any case.
    """
    trainer = Trainer(comm, task, cls, images, local_device(), mesh)
    if start is not None:
        trainer.restore(load(start))
    logs, seconds, asked, stopped = {}, [], False, False
    while len(trainer.losses) < task.steps and not stopped:
        started = time.perf_counter()
        stopped = trainer.step(asked)
        seconds.append(time.perf_counter() - started)
        made = len(trainer.losses)
        logs[task.bucket_of(made - 1)] = list(comm.log)
        if comm.rank == 0:
            asked = bool(report(made, trainer.losses[-1]))
        if folder is not None and (made % every == 0 or made == task.steps or stopped):
            state = trainer.state()
            if comm.rank == 0:
                save(folder, state, task)
    return {
        "losses": trainer.losses,
        "weights": trainer.whole_weights(),
        "logs": [logs[bucket] for bucket in sorted(logs)],
        "seconds": seconds,
        "stopped": stopped,
    }
