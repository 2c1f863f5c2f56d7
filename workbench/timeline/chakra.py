"""The log of a step as Chakra execution traces, which simulators such as ASTRA-sim read.

A trace is one file a rank: a message of metadata and then one message a node, each after its
length. Only the few fields that a log fills are written, in protocol buffers' wire format, by hand:
no package ships Chakra's schema.

Source: mlcommons/chakra@6dc63e147b9d115286626cc122459e44d9d08401, schema/protobuf/et_def.proto (MIT
licence): the numbers and types of fields and kinds below.
"""

from collections.abc import Iterable, Iterator, Sequence
from math import inf

from workbench.collectives import SENT_PER_INPUT_BYTE, Collective

#: Numbers of `NodeType` and of `CollectiveCommType`.
_SEND, _RECEIVE, _COLLECTIVE, _COMPUTE = 5, 6, 7, 4
_KINDS = {"all_reduce": 0, "all_gather": 2, "all_to_all": 6, "reduce_scatter": 7}
#: Fields of `Node`, and of an `AttributeProto` by the type of its value.
_ID, _NAME, _TYPE, _DEPENDS, _DURATION, _ATTRIBUTE = 1, 2, 3, 5, 7, 10
_INT32, _INT64, _BOOL = 7, 9, 27
_VERSION = "0.0.4"


def to_chakra(
    log: Sequence[Collective], rank: int, p: int, compute_s: Sequence[float] | None = None
) -> bytes:
    """Write one rank's trace: its collectives one after another, each waiting for the one before.

    Parameters
    ----------
    log : sequence of Collective
        As of ``fake_step(...).log``; of one axis.
    rank, p : int
        Whose trace, of how many ranks.
    compute_s : sequence of float, optional
        What is computed ahead of each collective, and at last after all of them [s].

    Returns
    -------
    bytes
        The contents of a file ``name.<rank>.et``.

    Raises
    ------
    ValueError
        If there is no such rank, not one time more than collectives, or the log is of a mesh.

    Notes
    -----
    ``comm_size`` is the bytes that the rank hands over. A ring's shift is a send to the next rank
    and a receive from the one before. Left out: that a ring's transfers may hide.

    Examples
    --------
    >>> switch = Collective("all_to_all", "sp", "time->space", "float32", 80, 60, "forward", 0, 0)
    >>> len(to_chakra([switch], rank=0, p=4)) > 80
    True
    """
    if not 0 <= rank < p:
        raise ValueError(f"rank={rank} is none of p={p} ranks, which count from 0")
    if compute_s is not None and len(compute_s) != len(log) + 1:
        raise ValueError(
            f"compute_s needs a time ahead of each of {len(log)} collectives and one after them "
            f"all, {len(log) + 1}; got {len(compute_s)}"
        )
    if compute_s is not None and not all(0 <= seconds < inf for seconds in compute_s):
        raise ValueError(f"compute_s are seconds, 0 or more; got {list(compute_s)}")
    for record in log:
        _check_axis(record, p)
    metadata = _text(1, _VERSION)
    nodes = list(_nodes(log, rank, p, compute_s))
    return b"".join(_varint(len(message)) + message for message in (metadata, *nodes))


def _check_axis(record: Collective, p: int) -> None:
    sent, held = SENT_PER_INPUT_BYTE[record.kind](p)
    if record.axis not in ("sp", "*") or record.sent_bytes * held != record.input_bytes * sent:
        raise ValueError(
            f"a trace is of one axis of all p={p} ranks, and this log has a {record.kind} along "
            f"{record.axis!r} that sends {record.sent_bytes} of {record.input_bytes} bytes; take "
            "the log of a step on as many ranks without mesh="
        )


def _nodes(log, rank, p, compute_s) -> Iterator[bytes]:
    number, before = 0, []

    def node(name: str, kind: int, attributes: Iterable[bytes] = (), micros: int = 0) -> bytes:
        nonlocal number
        number += 1
        parts = [_number(_ID, number - 1), _text(_NAME, name), _number(_TYPE, kind)]
        parts += [_number(_DEPENDS, each) for each in before]
        parts += [_number(_DURATION, micros)] if micros else []
        return b"".join([*parts, *(_block(_ATTRIBUTE, each) for each in attributes)])

    for i, record in enumerate([*log, None]):
        if compute_s is not None:
            micros = round(compute_s[i] * 1e6)
            yield node("compute", _COMPUTE, [_attribute("is_cpu_op", _BOOL, 0)], micros)
            before = [number - 1]
        if record is None:
            return
        if record.kind == "ring_shift":
            for kind, ends in ((_SEND, (rank, (rank + 1) % p)), (_RECEIVE, ((rank - 1) % p, rank))):
                yield node(_name(record), kind, _point_to_point(record, *ends, tag=i))
            before = [number - 2, number - 1]
        else:
            yield node(_name(record), _COLLECTIVE, _collective(record))
            before = [number - 1]


def _name(record: Collective) -> str:
    return f"{record.kind} {record.phase} layer {record.layer} stage {record.stage}"


def _collective(record: Collective) -> list[bytes]:
    kind = _attribute("comm_type", _INT64, _KINDS[record.kind])
    return [_attribute("is_cpu_op", _BOOL, 0), kind, *_size(record)]


def _point_to_point(record: Collective, source: int, to: int, tag: int) -> list[bytes]:
    ends = {"comm_src": source, "comm_dst": to, "comm_tag": tag}
    attributes = [_attribute(name, _INT32, value) for name, value in ends.items()]
    return [_attribute("is_cpu_op", _BOOL, 0), *attributes, *_size(record)]


def _size(record: Collective) -> list[bytes]:
    return [_attribute("comm_size", _INT64, record.input_bytes)]


def _attribute(name: str, field: int, value: int) -> bytes:
    return _text(1, name) + _number(field, value)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more come."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _block(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, words: str) -> bytes:
    return _block(field, words.encode())
