"""All clients' linear heads in one batched step, without messages: the engine "vectorised".

The clients of a round are stacked along a first dim; products are `torch.baddbmm`, and the
optimizer, which works number by number, moves all of them at once. Batches, sampling, refusals and
weights of the mean are those of the messages' way, so results agree to rounding (1e-5), not to the
bit. Nothing travels: all bytes are 0, and ``history.engine`` is "vectorised".
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from workbench.federated.history import Evaluation, History, Round
from workbench.federated.joining import check_enough, mean_loss
from workbench.federated.learner import (
    batch_places,
    evaluated_rows,
    optimizer_of,
    torch_threads,
)
from workbench.federated.linear import BIAS, WEIGHT, is_linear, start, tensors
from workbench.federated.methods import FedAvg
from workbench.federated.methods.base import Update
from workbench.federated.objectives import Classify
from workbench.federated.options import FAMILIES
from workbench.federated.partition import BATCHES, clients_of, generator, sample
from workbench.federated.task import FederatedTask
from workbench.federated.traffic import largest_norm

ENGINE = "vectorised"


def check(task: FederatedTask) -> None:
    """Refuse a task that this engine does not compute as messages would."""
    others = [f for f in FAMILIES if f not in ("method", "partition") and getattr(task, f)]
    if not is_linear(task) or type(task.method) is not FedAvg or others:
        raise ValueError(
            f"engine='vectorised' with model={task.model!r}, method={task.method!r} and options "
            f"{others}; it computes FedAvg of model='linear' alone. Take engine='in-process'."
        )


@dataclass(frozen=True)
class Rows:
    """Rows of all clients behind each other: features, labels, where each client's begin."""

    features: torch.Tensor
    labels: torch.Tensor
    first: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, hands: Sequence[Sequence[Mapping[str, Any]]]) -> "Rows":
        """The rows in the order of the clients."""
        counts = np.array([len(hand) for hand in hands])
        features, labels = tensors([row for hand in hands for row in hand])
        return cls(features, labels, np.cumsum(counts) - counts, counts)


def run(task: FederatedTask, watch: Any) -> History:
    """Run the task; ``watch`` is told of each round."""
    check(task)
    clients = clients_of(task)
    evaluated = [evaluated_rows(task, i, c, Classify.eval_rows) for i, c in enumerate(clients)]
    train, held_out = Rows.of([c.train for c in clients]), Rows.of(evaluated)
    names = [client.name for client in clients]
    weights = {name: torch.from_numpy(array) for name, array in start(task).items()}
    watch.begin(task)
    try:
        with torch_threads(task.threads):
            history = History(task, evaluate(weights, held_out, names), (), {}, engine=ENGINE)
            watch.evaluated(history)
            for number in range(1, task.rounds + 1):
                watch.doing(number, "training")
                weights, done = one_round(task, number, weights, train, held_out, names)
                rounds = (*history.rounds, done)
                history = History(task, history.start, rounds, {}, engine=ENGINE)
                watch.evaluated(history)
    finally:
        watch.end()
    arrays = {name: tensor.numpy() for name, tensor in weights.items()}
    return History(task, history.start, history.rounds, arrays, engine=ENGINE)


def one_round(
    task: FederatedTask,
    number: int,
    weights: dict[str, torch.Tensor],
    train: Rows,
    held_out: Rows,
    names: Sequence[str],
) -> tuple[dict[str, torch.Tensor], Round]:
    """The sampled clients train at once; their mean is the new model; all evaluate it."""
    began = time.perf_counter()
    chosen = np.array(sample(task, number))
    trained, losses = train_all(task, number, weights, train, chosen)
    sizes = train.counts[chosen]
    valid, failed = accept(task, weights, trained, chosen, names)
    check_enough(task, number, min(task.min_clients, len(chosen)), int(valid.sum()), failed)
    shares = torch.from_numpy((sizes if task.method.rows_weigh() else sizes**0) * valid).double()
    shares = shares / shares.sum()
    weights = {
        name: torch.einsum("c,c...->...", shares[valid], each[valid].double()).float()
        for name, each in trained.items()
    }
    used = [
        Update(client, {}, size, loss)
        for client, size, loss in zip(
            chosen[valid].tolist(), sizes[valid].tolist(), losses[valid].tolist(), strict=True
        )
    ]
    training_s = time.perf_counter() - began
    evaluation = evaluate(weights, held_out, names)
    seconds = time.perf_counter() - began
    told = {names[update.client]: update.loss for update in used}
    return weights, Round(
        number, mean_loss(used), evaluation, 0, 0, 0, seconds, seconds - training_s, told, failed
    )


def train_all(
    task: FederatedTask,
    number: int,
    weights: Mapping[str, torch.Tensor],
    rows: Rows,
    chosen: np.ndarray,
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Every chosen client's steps, stacked along the first dim, and each one's mean loss."""
    places, sizes = batches(task, number, rows, chosen)
    weight, bias = (
        weights[name].expand(len(chosen), *weights[name].shape).clone().requires_grad_()
        for name in (WEIGHT, BIAS)
    )
    optimizer = optimizer_of(task, [weight, bias])
    counted = torch.arange(places.shape[2]) < sizes.unsqueeze(1)
    shares = counted.double() / sizes.unsqueeze(1)
    losses = torch.zeros(len(chosen), dtype=torch.float64)
    for step in range(task.local_steps):
        optimizer.zero_grad()
        here = places[:, step]
        scores = torch.baddbmm(
            bias.double().unsqueeze(1), rows.features[here], weight.double().transpose(1, 2)
        )
        each = F.cross_entropy(scores.flatten(0, 1), rows.labels[here].flatten(), reduction="none")
        mine = (each.view_as(here) * shares).sum(1)
        mine.sum().backward()
        optimizer.step()
        losses += mine.detach()
    return {WEIGHT: weight.detach(), BIAS: bias.detach()}, losses / task.local_steps


def batches(
    task: FederatedTask, number: int, rows: Rows, chosen: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """Places of the rows of every client's every step, and how many of them count.

    They are those that a client of its own draws; one with fewer rows than a batch has its first
    row repeated, uncounted.
    """
    sizes = np.minimum(task.batch_size, rows.counts[chosen])
    places = np.empty((len(chosen), task.local_steps, sizes.max()), np.int64)
    for i, client in enumerate(chosen.tolist()):
        draw, first = generator(task.seed, BATCHES, number, client), rows.first[client]
        drawn = batch_places(int(rows.counts[client]), task.batch_size, draw)
        for step, mine in zip(range(task.local_steps), drawn, strict=False):
            places[i, step, : sizes[i]] = mine + first
        places[i, :, sizes[i] :] = first
    return torch.from_numpy(places), torch.from_numpy(sizes)


def accept(
    task: FederatedTask,
    weights: Mapping[str, torch.Tensor],
    trained: Mapping[str, torch.Tensor],
    chosen: np.ndarray,
    names: Sequence[str],
) -> tuple[np.ndarray, dict[str, str]]:
    """Which updates are used, and why the others are not: the rule of the messages' way."""
    squares = sum(
        (each.double() - weights[name].double()).square().flatten(1).sum(1)
        for name, each in trained.items()
    )
    norms = torch.as_tensor(squares).sqrt().numpy()
    finite = np.isfinite(norms)
    limit = largest_norm(norms[finite].tolist(), task)
    failed = {
        names[client]: f"refused: norm {norm:.3g} is above {limit:.3g}"
        if np.isfinite(norm)
        else "refused: values that are not finite"
        for client, norm in zip(chosen.tolist(), norms.tolist(), strict=True)
        if not norm <= limit
    }
    return norms <= limit, failed


def evaluate(weights: Mapping[str, torch.Tensor], rows: Rows, names: Sequence[str]) -> Evaluation:
    """Every client's held-out loss and accuracy, from one product over all rows."""
    scores = F.linear(rows.features, weights[WEIGHT].double(), weights[BIAS].double())
    losses = F.cross_entropy(scores, rows.labels, reduction="none").numpy()
    hits = (scores.argmax(1) == rows.labels).numpy()
    owner = np.repeat(np.arange(len(names)), rows.counts)
    sums = [np.bincount(owner, each, len(names)) for each in (losses, hits)]
    found = {
        name: {"loss": loss / count, "accuracy": right / count, "predictions": count}
        for name, loss, right, count in zip(
            names, *(each.tolist() for each in sums), rows.counts.tolist(), strict=True
        )
        if count
    }
    return Evaluation.over(found)
