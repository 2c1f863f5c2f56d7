"""What travels: records and arrays, their bytes as a closed form, and which updates are refused."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from workbench.federated.lora import Weights, adapter_shapes, full_shapes
from workbench.federated.task import FederatedTask

#: Keys of the records; "arrays", "config" and "num-examples" are those of Flower's strategies.
ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
ROUND, EXAMPLES, TRAIN_LOSS = "server-round", "num-examples", "train_loss"
#: What a client tells of its held-out rows.
EVALUATION = ("loss", "accuracy", "predictions")
#: Beside its numbers an array carries NumPy's header: type, shape and order, padded.
#: Source: numpy.lib.format, "aligned so that the total is divisible by 64".
NPY_HEADER_BYTES = 128
#: A number in a ConfigRecord or a MetricRecord. Source: count_bytes of flwr.app.
SCALAR_BYTES = 8
#: More training rows than this are not believed: the number is the update's weight.
MAX_EXAMPLES = 1_000_000
#: Without ``max_update_norm``: this many times the median norm of a round of 3 or more updates.
NORM_FACTOR, NORM_LEAST = 10.0, 3


@dataclass(frozen=True)
class Traffic:
    """Bytes of a round's training messages: from the clients, and to the clients."""

    uplink_bytes: int
    downlink_bytes: int


def round_traffic(task: FederatedTask, tune: str | None = None) -> Traffic:
    """The bytes of one round in closed form, equal to Flower's own count of its records.

    Each array costs its numbers, its name and NumPy's header; a reply adds the mean loss and the
    number of rows, a request the number of the round. Evaluation and the transport's own headers
    are left out.

    Parameters
    ----------
    task : FederatedTask
        The model, the adapters and the clients of a round.
    tune : {None, "lora", "full"}
        What is sent; ``None`` is what the task trains, ``"full"`` all weights of the model.

    Examples
    --------
    >>> task = FederatedTask(clients_per_round=2, lora_rank=4)
    >>> adapters, everything = round_traffic(task), round_traffic(task, tune="full")
    >>> everything.uplink_bytes // adapters.uplink_bytes
    597
    """
    tune = tune or task.tune
    if tune not in ("lora", "full"):
        raise ValueError(f"tune={tune!r}; there is a closed form for 'lora' and for 'full'.")
    shapes = adapter_shapes(task) if tune == "lora" else full_shapes(task)
    arrays = sum(
        prod(shape) * np.dtype(np.float32).itemsize + NPY_HEADER_BYTES + len(name)
        for name, shape in shapes.items()
    )
    reply = sum(SCALAR_BYTES + len(key) for key in (TRAIN_LOSS, EXAMPLES))
    request = SCALAR_BYTES + len(ROUND)
    clients = task.clients_per_round
    return Traffic(clients * (arrays + reply), clients * (arrays + request))


def count_bytes(message: Message) -> int:
    """Flower's own count of what a message carries; 0 for an error."""
    if not message.has_content():
        return 0
    return sum(record.count_bytes() for record in message.content.values())


def pack(weights: Weights) -> ArrayRecord:
    """An adapter as it travels."""
    return ArrayRecord({name: Array(array) for name, array in weights.items()})


def unpack(arrays: ArrayRecord) -> Weights:
    """An adapter as it arrived."""
    return {name: array.numpy() for name, array in arrays.items()}


def request(arrays: ArrayRecord, number: int) -> RecordDict:
    """What the server sends to a client that trains or evaluates."""
    return RecordDict({ARRAYS: arrays, CONFIG: ConfigRecord({ROUND: number})})


def reply(weights: Weights, loss: float, examples: int) -> RecordDict:
    """What a client that has trained sends back."""
    metrics = MetricRecord({TRAIN_LOSS: loss, EXAMPLES: examples})
    return RecordDict({ARRAYS: pack(weights), METRICS: metrics})


def evaluation_fault(content: RecordDict) -> str | None:
    """Why a client's evaluation can't be used; ``None`` if it can."""
    metrics = content.get(METRICS)
    if not isinstance(metrics, MetricRecord) or set(metrics) != set(EVALUATION):
        return f"metrics are not {list(EVALUATION)}"
    values = [metrics[key] for key in EVALUATION]
    if any(isinstance(value, list) or not np.isfinite(value) or value < 0 for value in values):
        return f"{dict(metrics)} has a value that is not a finite number of at least 0"
    return None


def fault(content: RecordDict, sent: Weights) -> str | None:
    """Why a client's update can't be used; ``None`` if it can. ``sent`` is what it started from."""
    if not isinstance(content.get(ARRAYS), ArrayRecord):
        return f"no arrays in the reply, only {sorted(content)}"
    if not isinstance(content.get(METRICS), MetricRecord):
        return f"no metrics in the reply, only {sorted(content)}"
    return _metrics_fault(content[METRICS]) or _arrays_fault(content[ARRAYS], sent)


def _metrics_fault(metrics: MetricRecord) -> str | None:
    examples, loss = metrics.get(EXAMPLES), metrics.get(TRAIN_LOSS)
    if not isinstance(examples, int) or not 1 <= examples <= MAX_EXAMPLES:
        return f"{EXAMPLES} is {examples!r}, not a whole number from 1 to {MAX_EXAMPLES}"
    if set(metrics) != {EXAMPLES, TRAIN_LOSS}:
        return f"metrics {sorted(metrics)}, not {sorted((EXAMPLES, TRAIN_LOSS))}"
    if not isinstance(loss, float) or not np.isfinite(loss):
        return f"{TRAIN_LOSS} is {loss!r}, not a finite number"
    return None


def _arrays_fault(arrays: ArrayRecord, sent: Weights) -> str | None:
    if arrays.keys() != sent.keys():
        return f"{len(arrays.keys() ^ sent.keys())} arrays are missing or have unknown names"
    for name, array in arrays.items():
        if array.dtype != str(sent[name].dtype) or tuple(array.shape) != sent[name].shape:
            return (
                f"{name} is {array.dtype}{list(array.shape)}, not "
                f"{sent[name].dtype}{list(sent[name].shape)}"
            )
        try:
            values = array.numpy()
        except (ValueError, TypeError, EOFError) as error:
            return f"{name} can't be read: {error}"
        if values.shape != sent[name].shape or values.dtype != sent[name].dtype:
            return f"{name} holds {values.dtype}{list(values.shape)}, not what it says"
        if not np.isfinite(values).all():
            return f"{name} has values that are not finite"
    return None


def update_norm(arrays: ArrayRecord, sent: Weights) -> float:
    """Euclidean norm of what a client changed, over all arrays, in float64."""
    changes = (array.numpy().astype(np.float64) - sent[name] for name, array in arrays.items())
    return float(np.sqrt(sum(np.sum(change**2) for change in changes)))


def largest_norm(norms: Sequence[float], task: FederatedTask) -> float:
    """The largest norm that is accepted in a round with these norms."""
    if task.max_update_norm is not None:
        return task.max_update_norm
    if len(norms) < NORM_LEAST:
        return float("inf")
    return NORM_FACTOR * float(np.median(norms))
