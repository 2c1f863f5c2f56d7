"""What travels: records and arrays, their bytes as a closed form, and which updates are refused."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.constant import SType

from workbench.federated.client_memory import is_stateful
from workbench.federated.lora import Shapes, Weights, adapter_shapes, full_shapes
from workbench.federated.options.compression import Spec, Specs
from workbench.federated.options.privacy import CentralDP
from workbench.federated.task import FederatedTask

#: Keys of the records; "arrays", "config" and "num-examples" are those of Flower's strategies.
ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
ROUND, EXAMPLES, TRAIN_LOSS = "server-round", "num-examples", "train_loss"
#: The round of the state that a client started from, where clients keep any; 0 for none.
STATE_ROUND = "state-round"
#: The last round in which a client's update was used, as the server tells such clients.
USED = "used-round"
#: What a client tells of its held-out rows.
EVALUATION = ("loss", "accuracy", "predictions")
#: Beside its numbers an array carries NumPy's header: type, shape and order, padded.
#: Source: numpy.lib.format, "aligned so that the total is divisible by 64".
NPY_HEADER_BYTES = 128
#: A number in a ConfigRecord or a MetricRecord. Source: count_bytes of flwr.app.
SCALAR_BYTES = 8
#: More training rows than this are not believed: the number is the update's weight.
MAX_EXAMPLES = 1_000_000
#: Beyond this, floats no longer tell neighbouring whole numbers apart.
MAX_PREDICTIONS = 2**53
#: Without ``max_update_norm``: this many times the median norm of a round of 3 or more updates.
NORM_FACTOR, NORM_LEAST = 10.0, 3


@dataclass(frozen=True)
class Traffic:
    """Bytes of a round's training messages: from the clients, and to the clients."""

    uplink_bytes: int
    downlink_bytes: int


def round_traffic(
    task: FederatedTask,
    tune: str | None = None,
    clients: Sequence[int] | None = None,
    merged_updates: int = 0,
) -> Traffic:
    """The bytes of one round in closed form, equal to Flower's own count of its records.

    Each array costs its numbers, its name and NumPy's header; a reply adds the mean loss, the
    number of rows and, where clients keep state, its round; a request the numbers of the round and,
    with state, of the last in which this client's update was used. What the method sends beside the
    model counts, and compression on the way up. Left out are evaluation, the transport's own
    headers, and secure aggregation's keys and shares.

    Parameters
    ----------
    task : FederatedTask
        The model, the adapters and the clients of a round.
    tune : {None, "lora", "head", "prompt", "prefix", "full"}
        What is sent; ``None`` is what the task trains, ``"full"`` all weights of the model.
    clients : sequence of int or None
        Who trains; ``None`` stands for the first ``clients_per_round`` ones, which is what a
        Poisson sample has on average.
    merged_updates : int
        Updates that were used in the rounds before: methods that merge into the base send what was
        merged, as factors whose rank grows with it, until the dense change is smaller.

    Examples
    --------
    >>> task = FederatedTask(clients_per_round=2, lora_rank=4)
    >>> adapters, everything = round_traffic(task), round_traffic(task, tune="full")
    >>> everything.uplink_bytes // adapters.uplink_bytes
    597
    """
    model = {name: Spec(shape) for name, shape in _shapes(task, tune or task.tune).items()}
    asked = range(task.clients_per_round) if clients is None else clients
    odd = [client for client in asked if client not in range(task.num_clients)]
    if odd or merged_updates < 0:
        raise ValueError(f"clients={odd} of {task.num_clients}, merged_updates={merged_updates}.")
    each = [client_traffic(task, model, client, merged_updates) for client in asked]
    return Traffic(sum(t.uplink_bytes for t in each), sum(t.downlink_bytes for t in each))


def client_traffic(
    task: FederatedTask, model: Specs, client: int, merged_updates: int = 0
) -> Traffic:
    """The same for one client, from the shapes of the model's arrays."""
    sent = task.method.down(model, client) | task.method.merged(model, merged_updates)
    sends = wire_specs(task, task.method.sends(model, client))
    up, down = numbers_bytes(is_stateful(task))
    up += arrays_bytes(sends) if task.secure_aggregation is None else masked_bytes(sends)
    return Traffic(up, down + arrays_bytes(sent))


def _shapes(task: FederatedTask, tune: str) -> Shapes:
    if tune not in task.method.tunes:
        raise ValueError(
            f"tune={tune!r}; with {task.method!r} there is a closed form for "
            f"{list(task.method.tunes)}."
        )
    if tune == "full":
        return full_shapes(task)
    return adapter_shapes(replace(task, tune=tune, start="pretrained"))


def wire_specs(task: FederatedTask, specs: Specs) -> Specs:
    """What travels up for a client's arrays of these shapes."""
    return specs if task.compression is None else task.compression.wire(specs)


def numbers_bytes(stateful: bool) -> tuple[int, int]:
    """What the numbers beside the arrays take: of a reply, and of a request."""
    up = [TRAIN_LOSS, EXAMPLES, *([STATE_ROUND] if stateful else [])]
    down = [ROUND, *([USED] if stateful else [])]
    return tuple(sum(SCALAR_BYTES + len(key) for key in keys) for keys in (up, down))


def arrays_bytes(specs: Specs) -> int:
    """Flower's count of arrays of these shapes and types."""
    return sum(
        prod(spec.shape) * spec.dtype.itemsize + NPY_HEADER_BYTES + len(name)
        for name, spec in specs.items()
    )


def masked_bytes(specs: Specs) -> int:
    """Flower's count of a masked change of arrays of these shapes: 8 bytes a number, no names.

    Beside them travel the masked weight, and what is left of a legacy result: the weight, a code
    and a word.
    """
    numbers = sum(8 * prod(spec.shape) + NPY_HEADER_BYTES for spec in specs.values())
    legacy = (
        SCALAR_BYTES + len("num_examples") + SCALAR_BYTES + len("code") + len("message") + len("ok")
    )
    return len("masked_params") + 8 + NPY_HEADER_BYTES + numbers + legacy


def count_bytes(message: Message) -> int:
    """Flower's own count of what a message carries; 0 for an error."""
    return sum(map(_record_bytes, message.content.values())) if message.has_content() else 0


def _record_bytes(record: Any) -> int:
    try:
        return record.count_bytes()
    except (ValueError, IndexError):  # Flower's, at an empty text or list in a ConfigRecord
        return 0


def pack(weights: Weights) -> ArrayRecord:
    """An adapter as it travels."""
    return ArrayRecord({name: Array(array) for name, array in weights.items()})


def packer() -> Callable[[Weights], ArrayRecord]:
    """`pack`, but once for the same arrays when they go to one client after another."""
    last: list = [None, None]

    def packed(arrays: Weights) -> ArrayRecord:
        same = last[0] is not None and arrays.keys() == last[0].keys()
        if not (same and all(arrays[name] is last[0][name] for name in arrays)):
            last[:] = arrays, pack(arrays)
        return last[1]

    return packed


def unpack(arrays: ArrayRecord) -> Weights:
    """An adapter as it arrived."""
    return {name: numbers(array) for name, array in arrays.items()}


def request(arrays: ArrayRecord, number: int, used: int | None = None) -> RecordDict:
    """What the server sends to a client; ``used`` is the last round in which its update was."""
    config = {ROUND: number} if used is None else {ROUND: number, USED: used}
    return RecordDict({ARRAYS: arrays, CONFIG: ConfigRecord(config)})


def reply(
    weights: Weights, loss: float, examples: int, state_round: int | None = None
) -> RecordDict:
    """What a client that has trained sends back; with state, also the round that it is of."""
    metrics = {TRAIN_LOSS: loss, EXAMPLES: examples}
    if state_round is not None:
        metrics[STATE_ROUND] = state_round
    return RecordDict({ARRAYS: pack(weights), METRICS: MetricRecord(metrics)})


def evaluation_fault(content: RecordDict) -> str | None:
    """Why a client's evaluation can't be used; ``None`` if it can."""
    metrics = content.get(METRICS)
    if not isinstance(metrics, MetricRecord) or set(metrics) != set(EVALUATION):
        return f"metrics are not {list(EVALUATION)}"
    values = [metrics[key] for key in EVALUATION]
    if any(isinstance(value, list) or not 0 <= value < float("inf") for value in values):
        return f"{dict(metrics)} has a value that is not a finite number of at least 0"
    if metrics["accuracy"] > 1 or metrics["predictions"] > MAX_PREDICTIONS:
        return f"{dict(metrics)} has an accuracy above 1, or more predictions than can be counted"
    return None


def metrics_fault(metrics: MetricRecord, stateful: bool = False) -> str | None:
    """Why a reply's numbers can't be used; ``None`` if they can."""
    examples, loss = metrics.get(EXAMPLES), metrics.get(TRAIN_LOSS)
    if not isinstance(examples, int) or not 1 <= examples <= MAX_EXAMPLES:
        return f"{EXAMPLES} is {examples!r}, not a whole number from 1 to {MAX_EXAMPLES}"
    awaited = {EXAMPLES, TRAIN_LOSS} | ({STATE_ROUND} if stateful else set())
    if set(metrics) != awaited:
        return f"metrics {sorted(metrics)}, not {sorted(awaited)}"
    if not isinstance(loss, float) or not np.isfinite(loss):
        return f"{TRAIN_LOSS} is {loss!r}, not a finite number"
    if stateful and (not isinstance(metrics[STATE_ROUND], int) or metrics[STATE_ROUND] < 0):
        return f"{STATE_ROUND} is {metrics[STATE_ROUND]!r}, not a whole number of at least 0"
    return None


def numbers(array: Array) -> np.ndarray:
    """An array as NumPy's; of the header that NumPy writes itself nothing needs to be parsed."""
    start = _header(array.dtype, tuple(array.shape))
    if array.stype != SType.NUMPY or not array.data.startswith(start):
        return array.numpy()
    return np.frombuffer(array.data, array.dtype, offset=len(start)).reshape(array.shape).copy()


@lru_cache(maxsize=1024)
def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """What stands before the numbers in a file of NumPy's, in the order of C."""
    written = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    fields = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(written, fields)
    return written.getvalue()


def read_arrays(arrays: ArrayRecord, expected: Specs) -> Weights:
    """A reply's arrays.

    Raises
    ------
    ValueError
        If they have other names, shapes or types than expected, or values that are not finite.
    """
    if arrays.keys() != expected.keys():
        odd = len(arrays.keys() ^ expected.keys())
        raise ValueError(f"{odd} arrays are missing or have unknown names")
    return {name: _checked(name, array, expected[name]) for name, array in arrays.items()}


def _checked(name: str, array: Array, spec: Spec) -> np.ndarray:
    if array.dtype != str(spec.dtype) or tuple(array.shape) != spec.shape:
        raise ValueError(
            f"{name} is {array.dtype}{list(array.shape)}, not {spec.dtype}{list(spec.shape)}"
        )
    size = prod(spec.shape) * spec.dtype.itemsize + NPY_HEADER_BYTES
    if len(array.data) != size:
        raise ValueError(f"{name} has {len(array.data)} bytes, not {size}")
    try:
        values = numbers(array)
    except Exception as error:  # a header that lies can make NumPy raise almost anything
        raise ValueError(f"{name} can't be read: {type(error).__name__}") from None
    if not isinstance(values, np.ndarray):
        raise ValueError(f"{name} holds {type(values).__name__}, not an array")
    if values.shape != spec.shape or values.dtype != spec.dtype:
        raise ValueError(f"{name} holds {values.dtype}{list(values.shape)}, not what it says")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} has values that are not finite")
    return values


def specs_of(arrays: Weights) -> Specs:
    """Shape and type of each array."""
    return {name: Spec(array.shape, array.dtype) for name, array in arrays.items()}


def largest_norm(norms: Sequence[float], task: FederatedTask) -> float:
    """The largest norm that is accepted in a round with these norms."""
    if task.max_update_norm is not None:
        return task.max_update_norm
    if isinstance(task.privacy, CentralDP):  # which clips instead
        return float("inf")
    return usual_limit(norms)


def usual_limit(norms: Sequence[float]) -> float:
    """The limit where the task says nothing: a multiple of the median, if there are enough."""
    if len(norms) < NORM_LEAST:
        return float("inf")
    return NORM_FACTOR * float(np.median(norms)) or float("inf")  # of no changes nothing is usual
