"""An update's way: clipped, made noisy and compressed by a client, decoded by the server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, MetricRecord, RecordDict

from workbench.federated.accounting import local_multiplier
from workbench.federated.client_memory import (
    FEEDBACK,
    METHOD,
    ClientMemory,
    is_stateful,
    named,
    part,
)
from workbench.federated.masking import Maskable
from workbench.federated.methods.base import Arrays, Update, as_control, control_part, model_part
from workbench.federated.options.compression import Specs
from workbench.federated.options.privacy import LocalDP
from workbench.federated.partition import NOISE, ROUNDING, Client, generator
from workbench.federated.task import FederatedTask
from workbench.federated.traffic import (
    ARRAYS,
    EXAMPLES,
    METRICS,
    NORM_FACTOR,
    STATE_ROUND,
    TRAIN_LOSS,
    largest_norm,
    metrics_fault,
    read_arrays,
    reply,
    specs_of,
    usual_limit,
    wire_specs,
)


class RefusedError(ValueError):
    """An update that can't be used; says why."""


def client_update(
    learner: Any, sent: Arrays, client: int, number: int, run_dir: str, used: int
) -> RecordDict:
    """Train one client in one round and make what it sends; what it keeps is written first.

    It starts from what it kept in round ``used``, the last one in which its update was.
    """
    task, memory, last = learner.task, {}, None
    if is_stateful(task):
        last, memory = ClientMemory(run_dir, client).of(used)
    trained = task.method.train(learner, sent, client, number, part(memory, METHOD))
    arrays, feedback = sendable(task, trained.arrays, sent, client, number, part(memory, FEEDBACK))
    if is_stateful(task):
        kept = named(trained.memory, METHOD) | named(feedback, FEEDBACK)
        if all(np.isfinite(array).all() for array in (*arrays.values(), *kept.values())):
            ClientMemory(run_dir, client).write(number, kept, used)  # else a bad step would stay
    return reply(arrays, trained.loss, len(learner.clients[client].train), last)


def sendable(
    task: FederatedTask, arrays: Arrays, sent: Arrays, client: int, number: int, feedback: Arrays
) -> tuple[Arrays, Arrays]:
    """What travels of a client's arrays, and what compression left for the next time."""
    if task.privacy is None and task.attack is None and task.compression is None:
        return arrays, {}
    reference = task.method.reference(sent, client)
    delta = {name: np.asarray(arrays[name] - reference[name]) for name in reference}
    if task.privacy is not None:
        delta = clipped(delta, task.privacy.clip_norm)
    if isinstance(task.privacy, LocalDP):
        delta = _noisy(delta, task, client, number)
    if task.attack is not None:
        delta = task.attack.update(delta, client)
    if task.compression is None:
        return {name: np.asarray(reference[name] + delta[name]) for name in reference}, {}
    if task.compression.stateful and feedback:
        delta = {name: array + feedback[name] for name, array in delta.items()}
    encoded = task.compression.encode(delta)
    if not task.compression.stateful:
        return encoded, {}
    decoded = task.compression.decode(encoded, specs_of(delta))
    return encoded, {name: array - decoded[name] for name, array in delta.items()}


def change_to_mask(
    task: FederatedTask, content: RecordDict, sent: Arrays, client: int, number: int
) -> Maskable:
    """A client's update as a change for secure aggregation, in float64.

    The server can't look at it, so an honest client refuses its own where the server would.
    """
    expected = Expected.of(task, sent, client)
    update = read_update(task, content, expected, client)
    norm, most = change_norm(update, expected.reference), task.max_update_norm
    if most is not None and not norm <= most:
        raise RefusedError(f"norm {norm:.3g} is above {most:.3g}")
    change = {n: update.arrays[n].astype(np.float64) - a for n, a in expected.reference.items()}
    weight = update.examples if task.method.rows_weigh() else 1
    return Maskable(content, change, weight, generator(task.seed, ROUNDING, number, client))


def weight_range(task: FederatedTask, clients: Sequence[Client]) -> tuple[int, int]:
    """The least and the most that a client counts: training rows, or 1 if all are equal."""
    rows = [len(client.train) for client in clients] if task.method.rows_weigh() else [1]
    return min(rows), max(rows)


def norm_of(delta: Arrays) -> float:
    """Euclidean norm over all arrays, in float64."""
    return float(np.sqrt(sum(np.sum(np.square(a, dtype=np.float64)) for a in delta.values())))


def clipped(delta: Arrays, most: float) -> Arrays:
    """The change times ``min(1, most / norm)``, all arrays with one factor, 0-d ones too."""
    norm = norm_of(delta)
    if not norm > most:
        return delta
    factor = most / norm
    return {name: np.asarray(array * factor, array.dtype) for name, array in delta.items()}


def _noisy(delta: Arrays, task: FederatedTask, client: int, number: int) -> Arrays:
    draw = generator(task.seed, NOISE, number, client + 1)
    sigma = local_multiplier(task.privacy) * task.privacy.clip_norm
    return {
        name: np.asarray(array + draw.normal(0.0, sigma, array.shape), array.dtype)
        for name, array in delta.items()
    }


@dataclass(frozen=True)
class Expected:
    """What the server awaits of a client: changes of these arrays, in this form on the wire."""

    reference: Arrays
    wire: Specs
    stateful: bool

    @classmethod
    def of(cls, task: FederatedTask, sent: Arrays, client: int) -> "Expected":
        """What a client that got ``sent`` answers."""
        reference = task.method.reference(sent, client)
        return cls(reference, wire_specs(task, specs_of(reference)), is_stateful(task))


def read_update(
    task: FederatedTask, content: RecordDict, expected: Expected, client: int
) -> Update:
    """What the server makes of a reply; `RefusedError` says why it can't be used."""
    if not isinstance(content.get(ARRAYS), ArrayRecord):
        raise RefusedError(f"no arrays in the reply, only {sorted(content)}")
    if not isinstance(content.get(METRICS), MetricRecord):
        raise RefusedError(f"no metrics in the reply, only {sorted(content)}")
    metrics, arrays = content[METRICS], content[ARRAYS]
    if reason := metrics_fault(metrics, expected.stateful):
        raise RefusedError(reason)
    try:
        values = read_arrays(arrays, expected.wire)
    except ValueError as error:
        raise RefusedError(str(error)) from None
    if task.compression is not None:
        values = _decoded(task, values, expected.reference)
    return Update(client, values, metrics[EXAMPLES], metrics[TRAIN_LOSS])


def _decoded(task: FederatedTask, arrays: Arrays, reference: Arrays) -> Arrays:
    try:
        delta = task.compression.decode(arrays, specs_of(reference))
    except ValueError as error:
        raise RefusedError(str(error)) from None
    with np.errstate(over="ignore"):
        values = {name: np.asarray(reference[name] + delta[name]) for name in reference}
    if not all(np.isfinite(array).all() for array in values.values()):
        raise RefusedError("the change has values that are not finite")
    return values


def change_norm(update: Update, reference: Arrays) -> float:
    """Euclidean norm of what a client changed of the model, in float64."""
    return _norm(model_part(update.arrays), reference)


def too_large(
    task: FederatedTask, updates: Mapping[int, Update], references: Mapping[int, Arrays]
) -> dict[int, str]:
    """Which clients' updates are too large in this round, and why.

    What travels beside the model are changes of control variates, of the size of gradients. Theirs
    is a multiple of what belongs to the model's limit, were it reached in ``local_steps`` of
    ``lr``; or of the round's median, where a client that had none yet tells all of its gradient.
    """
    norms = {i: change_norm(update, references[i]) for i, update in updates.items()}
    limit = largest_norm(list(norms.values()), task)
    found = {i: f"norm {n:.3g} is above {limit:.3g}" for i, n in norms.items() if not n <= limit}
    beside = {
        i: _norm(as_control(control_part(u.arrays)), references[i]) for i, u in updates.items()
    }
    scale = task.learning_rate * task.local_steps
    if task.max_update_norm is not None:
        limit = NORM_FACTOR * task.max_update_norm / scale
    else:
        limit = usual_limit([beside[i] + norms[i] / scale for i in updates])
    for client, norm in beside.items():
        if norm > limit:
            found.setdefault(client, f"norm {norm:.3g} beside the model is above {limit:.3g}")
    return found


def _norm(arrays: Arrays, reference: Arrays) -> float:
    return norm_of({name: a.astype(np.float64) - reference[name] for name, a in arrays.items()})


def state_round(metrics: Mapping[str, Any]) -> int:
    """The round whose state a client started from; 0 for none."""
    return int(metrics.get(STATE_ROUND, 0))
