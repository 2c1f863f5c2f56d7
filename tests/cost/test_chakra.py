"""Traces for Chakra are read back by protocol buffers' own parser, with the schema's fields."""

from collections import Counter
from dataclasses import replace

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal.decoder import _DecodeVarint32

import workbench as wb
from workbench.timeline import to_chakra

#: Field -> number and type, of what a trace of a log has.
#: Source: mlcommons/chakra@6dc63e1, schema/protobuf/et_def.proto.
ATTRIBUTE = {"name": (1, "STRING"), "int32_val": (7, "INT32"), "int64_val": (9, "INT64"),
             "bool_val": (27, "BOOL")}  # fmt: skip
NODE = {"id": (1, "UINT64"), "name": (2, "STRING"), "type": (3, "INT32"),
        "data_deps": (5, "UINT64*"), "duration_micros": (7, "UINT64"),
        "attr": (10, "Attribute*")}  # fmt: skip
KINDS = {4: "compute", 5: "send", 6: "receive", 7: "collective"}
SPEC = wb.PRESETS["toy-video"]


@pytest.mark.parametrize("mesh", [{"ring": 2, "ulysses": 2}, {"data": 2, "dsp": 2}])
def test_a_mesh_is_refused(mesh):
    log = wb.fake_step(
        replace(SPEC, batch=2), "dsp" if "dsp" in mesh else "usp", p=4, mesh=mesh
    ).log
    with pytest.raises(ValueError, match="one axis of all p=4 ranks"):
        to_chakra(log, 0, 4)
    with pytest.raises(ValueError, match="sends 3072 of 4096 bytes"):
        to_chakra(wb.fake_step(SPEC, "dsp", p=4).log, 0, 8)


@pytest.fixture(scope="module")
def node_class():
    file = descriptor_pb2.FileDescriptorProto(name="chakra.proto", package="t", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto
    for message, fields in (("Attribute", ATTRIBUTE), ("Node", NODE)):
        made = file.message_type.add(name=message)
        for name, (number, kind) in fields.items():
            many, kind = kind.endswith("*"), kind.rstrip("*")
            label = field.LABEL_REPEATED if many else field.LABEL_OPTIONAL
            one = made.field.add(name=name, number=number, label=label)
            if kind == "Attribute":
                one.type, one.type_name = field.TYPE_MESSAGE, ".t.Attribute"
            else:
                one.type = getattr(field, f"TYPE_{kind}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Node"))


def read(trace, node_class):
    """All nodes of a trace, after its metadata; nothing in it is unknown."""
    found, at = [], 0
    while at < len(trace):
        size, at = _DecodeVarint32(trace, at)
        found.append(trace[at : at + size])
        at += size
    assert found[0] == b"\n\x050.0.4"
    return [node_class.FromString(message) for message in found[1:]]


def attributes(node):
    return {a.name: a.int64_val or a.int32_val for a in node.attr}


def test_collectives_are_those_of_the_log(node_class):
    log = wb.fake_step(SPEC, "megatron-sp", p=4).log
    nodes = read(to_chakra(log, 1, 4), node_class)
    kinds = {"all_reduce": 0, "all_gather": 2, "reduce_scatter": 7}
    assert [(KINDS[n.type], n.id) for n in nodes] == [("collective", i) for i in range(len(log))]
    assert [(attributes(n)["comm_type"], attributes(n)["comm_size"]) for n in nodes] == [
        (kinds[record.kind], record.input_bytes) for record in log
    ]
    assert [list(n.data_deps) for n in nodes] == [[], *([i] for i in range(len(log) - 1))]


def test_a_ring_sends_to_the_next_rank_what_it_receives(node_class):
    log = wb.fake_step(SPEC, "ring", p=4).log
    ranks = [read(to_chakra(log, rank, 4), node_class) for rank in range(4)]
    sent, received = Counter(), Counter()
    for rank, nodes in enumerate(ranks):
        for node in nodes:
            a = attributes(node)
            if KINDS[node.type] == "collective":
                continue
            key = a["comm_src"], a["comm_dst"], a["comm_tag"], a["comm_size"]
            (sent if KINDS[node.type] == "send" else received)[key] += 1
            assert rank == (a["comm_src"] if KINDS[node.type] == "send" else a["comm_dst"])
    assert sent == received
    assert sum(sent.values()) == 4 * sum(record.kind == "ring_shift" for record in log)


def test_computing_comes_between(node_class):
    log = wb.fake_step(SPEC, "dsp", p=4).log
    times = [1e-3 * (i + 1) for i in range(len(log) + 1)]
    nodes = read(to_chakra(log, 0, 4, times), node_class)
    computing = [n for n in nodes if KINDS[n.type] == "compute"]
    assert [n.duration_micros for n in computing] == [1000 * (i + 1) for i in range(len(times))]
    assert [list(n.data_deps) for n in nodes[1:]] == [[i] for i in range(len(nodes) - 1)]


def test_wrong_asks_are_refused():
    log = wb.fake_step(SPEC, "dsp", p=4).log
    with pytest.raises(ValueError, match="rank=4 is none of p=4"):
        to_chakra(log, 4, 4)
    with pytest.raises(ValueError, match="compute_s needs a time ahead of each"):
        to_chakra(log, 0, 4, [1.0])
