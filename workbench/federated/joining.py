"""From the round's valid updates to the server's next state: the mean, a defence, or noise."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from workbench.federated.methods.base import Arrays, ServerState, Update
from workbench.federated.options.privacy import CentralDP
from workbench.federated.partition import NOISE, generator
from workbench.federated.task import FederatedTask
from workbench.federated.updates import clipped


def next_state(
    task: FederatedTask,
    server: ServerState,
    updates: Sequence[Update],
    number: int,
    joined: Arrays | None = None,
) -> ServerState:
    """Join the updates, ordered by client, as the task says, and let the method go on.

    Secure aggregation has ``joined`` them already; its updates have no arrays.
    """
    if joined is None:
        joined = _joined(task, server, updates, number)
    server = replace(server, scale=task.lora_scale)
    return task.method.step(server, joined, updates, task.num_clients)


def _joined(
    task: FederatedTask, server: ServerState, updates: Sequence[Update], number: int
) -> Arrays:
    if isinstance(task.privacy, CentralDP):
        return private_mean(task, server, updates, number)
    if task.defence is not None:
        return defended(task, server, updates)
    return task.method.join(updates, server)


def check_enough(
    task: FederatedTask, number: int, needed: int, valid: int, failed: Mapping[str, str]
) -> None:
    """Fail a round by name if fewer than ``needed`` updates, or than a defence needs, are valid."""
    if valid < needed:
        raise RuntimeError(
            f"round {number}: {valid} valid updates, min_clients is {task.min_clients}. "
            + "; ".join(f"{name}: {why}" for name, why in failed.items())
        )
    if task.defence is not None:
        try:
            task.defence.check_updates(valid)
        except ValueError as error:
            raise RuntimeError(
                f"round {number}: with {valid} valid updates {task.defence!r} promises nothing: "
                f"{error} Left out: "
                + "; ".join(f"{name}: {why}" for name, why in failed.items())
                + ". Ask more clients in a round, so that some may be missing."
            ) from None


def private_mean(
    task: FederatedTask, server: ServerState, updates: Sequence[Update], number: int
) -> Arrays:
    """``w + (sum of clipped changes + noise) / clients_per_round``, in float64.

    The divisor is the expected number of clients and the noise is the same, whoever answers: also
    if nobody does. Changes are clipped here again, since nobody's word is taken for it.
    """
    privacy, reference = task.privacy, task.method.evaluated(server, 0)
    total = {name: np.zeros(array.shape) for name, array in reference.items()}
    for delta in _changes(updates, reference):
        for name, array in clipped(delta, privacy.clip_norm).items():
            total[name] += array
    draw = generator(task.seed, NOISE, number)
    sigma = privacy.noise_multiplier * privacy.clip_norm
    joined = {}
    for name, array in reference.items():
        noise = draw.normal(0.0, sigma, array.shape)
        moved = array + (total[name] + noise) / task.clients_per_round
        joined[name] = np.asarray(moved, array.dtype)
    return joined


def defended(task: FederatedTask, server: ServerState, updates: Sequence[Update]) -> Arrays:
    """``w + the defence's choice of the changes``, in float64; `check_enough` has counted them."""
    reference = task.method.evaluated(server, 0)
    chosen = task.defence.join(_changes(updates, reference))
    return {name: (a + chosen[name]).astype(a.dtype) for name, a in reference.items()}


def _changes(updates: Sequence[Update], reference: Arrays) -> list[Arrays]:
    return [
        {n: np.asarray(update.arrays[n].astype(np.float64) - a) for n, a in reference.items()}
        for update in updates
    ]


def mean_loss(updates: Sequence[Update]) -> float:
    """The updates' mean loss, weighted by training rows; NaN if nobody trained."""
    rows = sum(update.examples for update in updates)
    return sum(u.loss * (u.examples / rows) for u in updates) if updates else float("nan")
