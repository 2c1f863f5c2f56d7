"""One process's model: it takes an adapter, trains it on a client's rows, or evaluates it."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
import torch

from workbench.federated.linear import LinearHead, is_linear, sizes
from workbench.federated.lora import (
    Base,
    Weights,
    initial_adapter,
    read_adapter,
    write_adapter,
)
from workbench.federated.models import load_base, local_device
from workbench.federated.objectives import Classify, Loss, Objective, Retrieval, objective
from workbench.federated.partition import BATCHES, EVALUATION, Client, Row, clients_of, generator
from workbench.federated.task import FederatedTask, Handed, task_in
from workbench.federated.tuning import trained_parameters, tuned

#: Changes the gradients of the parameters, by name, in place.
Gradient = Callable[[dict[str, torch.nn.Parameter]], None]


class Learner:
    """The task's model with what the task trains, and the task's clients."""

    def __init__(self, task: FederatedTask):
        self.task = task
        if is_linear(task):
            self.objective, self.tokenizer = Classify(), None
            self.model: torch.nn.Module = LinearHead(*sizes(task.dataset)).to(local_device())
        else:
            base = load_base(task.model)
            self.objective = objective(task, base)
            self.tokenizer = base.tokenizer
            self.model = tuned(task, base.model).eval()
            self.base = Base(self.model)
        self.parameters = trained_parameters(self.model)
        self.clients = clients_of(task)

    def train(
        self,
        weights: Weights,
        client: int,
        number: int,
        gradient: Gradient | None = None,
        count: int | None = None,
        step: int | None = None,
    ) -> tuple[Weights, float]:
        """Make the client's local steps of round ``number``; return the adapter and mean loss.

        Parameters
        ----------
        gradient : callable or None
            May change the parameters' gradients before each step of the optimizer.
        count, step : int or None
            Steps to make, if not the task's; and which of a round's calls this is, if there are
            several that shall see different batches.
        """
        rows, draw = self.drawn_from(client, number, step)
        write_adapter(self.parameters, weights)
        count = count or self.task.local_steps
        losses = self.steps(rows, count, draw, self.optimizer(), gradient)
        return read_adapter(self.parameters), float(np.mean(losses))

    def drawn_from(
        self, client: int, number: int, step: int | None = None
    ) -> tuple[Sequence[Row], np.random.Generator]:
        """The rows that a client trains on, and the random numbers that order them."""
        key = (number, client) if step is None else (number, client, step)
        rows = self.clients[client].train
        if self.task.attack is not None:
            rows = self.task.attack.rows(rows, client, self.task)
        return rows, generator(self.task.seed, BATCHES, *key)

    def start(self) -> Weights:
        """The arrays that every client starts from: those of the pretrained model."""
        return self._start

    @cached_property
    def _start(self) -> Weights:
        return initial_adapter(self.task)

    def tensors(self, weights: Weights) -> dict[str, torch.Tensor]:
        """Arrays as tensors where the model is."""
        return {n: torch.from_numpy(a).to(self.parameters[n].device) for n, a in weights.items()}

    def write_base(self, deltas: Weights) -> None:
        """Put the weights under the adapters to the pretrained ones plus these changes."""
        if not is_linear(self.task):
            self.base.write(deltas)

    def optimizer(self) -> torch.optim.Optimizer:
        """A fresh optimizer of what is trained."""
        return optimizer_of(self.task, self.parameters.values())

    def steps(
        self,
        rows: Sequence[Row],
        count: int,
        draw: np.random.Generator,
        optimizer: torch.optim.Optimizer,
        gradient: Gradient | None = None,
    ) -> list[float]:
        """Make ``count`` steps on batches of ``rows``, shuffled anew in each pass over them."""
        losses, batches = [], batches_of(rows, self.task.batch_size, draw)
        with torch_threads(self.task.threads):
            for _, batch in zip(range(count), batches, strict=False):
                optimizer.zero_grad()
                loss = self.objective(self.model, self.tokenizer, batch).mean
                loss.backward()
                if gradient is not None:
                    gradient(_with_gradients(self.parameters))
                optimizer.step()
                losses.append(loss.item())
        return losses

    def evaluate(self, weights: Weights, client: int) -> dict[str, float]:
        """The mean loss and accuracy on a client's held-out rows, and over how many predictions.

        A prediction is a question, or a token of a text or of an answer.
        """
        write_adapter(self.parameters, weights)
        total, hits, count = 0.0, 0, 0
        for _, loss in self.losses(self.evaluated_rows(client), self.objective):
            total += loss.mean.item() * loss.count
            hits, count = hits + loss.hits, count + loss.count
        mean, accuracy = (total / count, hits / count) if count else (0.0, 0.0)
        return {"loss": mean, "accuracy": accuracy, "predictions": count}

    def losses(self, rows: Sequence[Row], objective: Objective) -> list[tuple[Sequence[Row], Loss]]:
        """The batches in which rows are evaluated, each with its loss.

        Where answers are chosen, each batch has at least two rows: a question whose answer stands
        alone is no prediction.
        """
        size = objective.eval_batch
        ends = [*range(0, len(rows), size), len(rows)]
        if isinstance(objective, Retrieval) and len(rows) % size == 1:
            ends[-2] = len(rows) - 2 if len(rows) > 1 else 1
        batches = [rows[first:end] for first, end in pairwise(ends) if first < end]
        with torch_threads(self.task.threads), torch.no_grad():
            return [(batch, objective(self.model, self.tokenizer, batch)) for batch in batches]

    def evaluated_rows(self, client: int) -> Sequence[Row]:
        """The client's held-out rows, or as many of them as are evaluated."""
        return evaluated_rows(self.task, client, self.clients[client], self.objective.eval_rows)


def optimizer_of(task: FederatedTask, parameters: Iterable[torch.Tensor]) -> torch.optim.Optimizer:
    """A fresh optimizer as the task says."""
    kind = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[task.optimizer]
    return kind(parameters, lr=task.learning_rate, weight_decay=0.0)


def evaluated_rows(task: FederatedTask, index: int, client: Client, usual: int) -> Sequence[Row]:
    """A client's held-out rows, or as many as the task says, or ``usual`` if it says nothing."""
    limit, held_out = task.eval_examples or usual, client.held_out
    if len(held_out) <= limit:
        return held_out
    order = generator(task.seed, EVALUATION, index).permutation(len(held_out))
    return [held_out[i] for i in sorted(order[:limit])]


def _with_gradients(parameters: dict[str, torch.nn.Parameter]) -> dict[str, torch.nn.Parameter]:
    """The parameters, with zeros for gradients of those that the loss does not depend on."""
    for parameter in parameters.values():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return parameters


def batches_of(rows: Sequence[Row], size: int, draw: np.random.Generator) -> Iterator[list[Row]]:
    """Batches of rows without end, as `batch_places` draws them."""
    for places in batch_places(len(rows), size, draw):
        yield [rows[i] for i in places]


def batch_places(count: int, size: int, draw: np.random.Generator) -> Iterator[np.ndarray]:
    """Places of a batch's rows among ``count``, without end, shuffled anew in each pass.

    A pass's last rows that fill no batch are left for the next pass.
    """
    size = min(size, count)
    while True:
        order = draw.permutation(count)
        for first in range(0, count - size + 1, size):
            yield order[first : first + size]


@contextmanager
def torch_threads(count: int):
    """Let torch compute with ``count`` threads, and with as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def learner_of(given: str | Handed) -> Learner:
    """This thread's learner of a run's task; loaded once, kept until another is asked for."""
    return _learner(given, threading.get_ident())


@lru_cache(maxsize=1)
def _learner(given: str | Handed, thread: int) -> Learner:
    return Learner(task_in(given))


def forget_learners() -> None:
    """Give back the memory of the kept model."""
    _learner.cache_clear()
