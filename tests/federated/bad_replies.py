"""Replies that can't be used, each made from a good one, by kinds; drawn from a seed."""

import io
import math

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from workbench.federated.traffic import ARRAYS, EXAMPLES, MAX_EXAMPLES, METRICS, STATE_ROUND

WRONG_EXAMPLES = (0, -1, MAX_EXAMPLES + 1, 2**63, -(2**70), 3.0, math.nan, math.inf, [3], [])
WRONG_LOSSES = (math.nan, math.inf, -math.inf, 1, [0.5], [], 10**400)
OTHER_TYPES = ("float16", "float64", ">f4", "int64", "int32", "uint8", "bool", "complex64")


def record(arrays, metrics):
    """What a client sends: NumPy arrays become Flower's, others stay as they are."""
    packed = {n: a if isinstance(a, Array) else Array(np.asarray(a)) for n, a in arrays.items()}
    return RecordDict({ARRAYS: ArrayRecord(packed), METRICS: MetricRecord(metrics)})


def pick(draw, things):
    return list(things)[draw.integers(len(things))]


def not_finite(draw, arrays, metrics):
    """One number is NaN or infinite."""
    name = pick(draw, [n for n, a in arrays.items() if a.dtype in (np.float32, np.uint16)])
    bad, flat = arrays[name].copy(), arrays[name].size
    values = (math.nan, math.inf, -math.inf)
    if bad.dtype == np.uint16:  # bfloat16 as it travels
        values = (0x7FC0, 0x7F80, 0xFF80)
    bad.flat[draw.integers(flat)] = pick(draw, values)
    return record(arrays | {name: bad}, metrics)


def wrong_shape(draw, arrays, metrics):
    """Transposed, cut, grown, flat, 0-d, or one that broadcasts to the right shape."""
    while True:
        name = pick(draw, arrays)
        a = arrays[name]
        first, empty = a.flat[0], np.zeros((), a.dtype)
        changes = (a.T, a[:1], a[None], a.ravel(), a[:0], first, a.ravel()[:1], empty)
        changes += (np.concatenate([a, a[:1]]), np.full((1, 1), first))
        bad = np.array(pick(draw, changes))
        if bad.shape != a.shape:
            return record(arrays | {name: bad}, metrics)


def wrong_type(draw, arrays, metrics):
    name = pick(draw, arrays)
    others = [kind for kind in OTHER_TYPES if np.dtype(kind) != arrays[name].dtype]
    with np.errstate(all="ignore"):
        return record(arrays | {name: arrays[name].astype(pick(draw, others))}, metrics)


def wrong_names(draw, arrays, metrics):
    name = pick(draw, arrays)
    rest = {n: a for n, a in arrays.items() if n != name}
    more = {pick(draw, ("", "control/x", name + " ")): arrays[name]}
    return record(pick(draw, (rest, rest | more, arrays | more, {})), metrics)


def wrong_numbers(draw, arrays, metrics):
    """Of rows, the loss, or the state; one missing, or one too many."""
    key = pick(draw, metrics)
    wrong = {EXAMPLES: WRONG_EXAMPLES, STATE_ROUND: (-1, 0.5, math.nan, [1])}
    bad = metrics | {key: pick(draw, wrong.get(key, WRONG_LOSSES))}
    rest = {k: v for k, v in metrics.items() if k != key}
    return record(arrays, pick(draw, (bad, bad, bad, rest, metrics | {"more": 1}, {})))


def wrong_records(draw, arrays, metrics):
    """One of the two is another kind of record, or missing; or nothing came at all."""
    parts = dict(record(arrays, metrics).items())
    key, wrong = pick(draw, ((ARRAYS, METRICS), (METRICS, ARRAYS)))
    bad = {key: pick(draw, (ConfigRecord({"x": b""}), ConfigRecord({"x": []}), parts[wrong]))}
    return RecordDict(pick(draw, (parts | bad, parts | bad, bad, {wrong: parts[wrong]}, {})))


def not_what_it_says(draw, arrays, metrics):
    """The outside is right; the bytes are cut, random, of another shape, or another format."""
    name = pick(draw, arrays)
    good, zipped = Array(arrays[name]), io.BytesIO()
    np.savez(zipped, arrays[name])
    shape = str(good.shape).encode()
    rest = b"\0" * max(0, len(good.data) - 10 - 110)
    data = pick(
        draw,
        (
            b"",
            good.data[: draw.integers(len(good.data))],
            good.data + b"\0",
            draw.bytes(len(good.data)),
            draw.bytes(len(good.data) - 8) + b"\0" * 8,
            zipped.getvalue(),
            b"PK\x03\x04" + good.data[4:],
            b"\x80\x04" + good.data[2:],
            good.data.replace(shape, b"(-" + shape[1:]),
            good.data.replace(shape, b"(10000000000000, 9)"),
            resized(good.data, shape, b"(10000000000000, 9)"),
            resized(good.data, shape, b"(" * len(shape)),
            good.data[:10] + b"(" * 110 + rest,
            good.data.replace(b"<f4", b"|O8").replace(b"<u2", b"|O8").replace(b"|i1", b"|O8"),
            Array(np.array(arrays[name].T, order="C").reshape(1, *arrays[name].T.shape)).data,
        ),
    )
    if data == good.data:
        data = b""
    stype = pick(draw, ("numpy.ndarray", "numpy.ndarray", "numpy.ndarray", "torch.tensor"))
    return record(arrays | {name: Array(good.dtype, good.shape, stype, bytes(data))}, metrics)


def resized(data, old, new):
    """The header with another text in place of ``old``, as long as before."""
    head, rest = data[:128], data[128:]
    return (head.replace(old, new).rstrip(b" \n").ljust(127, b" ") + b"\n")[:128] + rest


KINDS = {
    "not finite": not_finite,
    "shape": wrong_shape,
    "type": wrong_type,
    "names": wrong_names,
    "numbers": wrong_numbers,
    "records": wrong_records,
    "not what it says": not_what_it_says,
}
