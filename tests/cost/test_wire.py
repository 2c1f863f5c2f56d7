"""Seconds of collectives, by hand."""

from collections import Counter
from dataclasses import replace

import pytest

import workbench as wb
from workbench.collectives import SENT_PER_INPUT_BYTE
from workbench.wire import Placement, collective_seconds, place, placements

#: 2 x 4 devices: 100 GB/s inside, 10 GB/s for each interface, no latency.
PLAIN = wb.Cluster("plain", wb.Device("d", 10**9, 1e12), 4, wb.Link("in", 100e9), 2,
                   wb.Link("out", 10e9))  # fmt: skip
SLOW = replace(PLAIN, intra=wb.Link("in", 100e9, 1e-3, 1e-2, 1e-1),
               inter=wb.Link("out", 10e9, 2e-3, 1.0, 2e-1))  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "ranks", "stride", "seconds"),
    [
        ("all_to_all", 4, 1, 0.75 / 100),  # 3/4 of 1 GB inside the node
        ("all_to_all", 8, 1, 0.5 / 10),  # 4/8 through the own interface; inside 3/8 at 100
        ("all_to_all", 2, 4, 0.5 / 10),  # one rank on each node
        ("all_to_all", 6, 1, 4 / 6 / 10),  # the two on the second node send most across
        ("all_gather", 4, 1, 3 / 100),
        ("all_gather", 8, 1, 7 / 40),  # 4 rings, each through another interface
        ("reduce_scatter", 8, 1, 7 / 8 / 40),
        ("all_reduce", 8, 1, 2 * 7 / 8 / 40),
        ("all_gather", 2, 4, 1 / 10),
        ("ring_shift", 4, 1, 1 / 100),
        ("ring_shift", 8, 1, 1 / 10),  # one rank sends all of it across
        ("all_reduce", 1, 1, 0.0),
    ],
)
def test_bandwidth_by_hand(kind, ranks, stride, seconds):
    assert collective_seconds(kind, 1e9, ranks, PLAIN, stride=stride) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("kind", "ranks", "seconds"),
    [
        ("all_to_all", 4, 1e-3 + 1e-2 + 3e-1),
        ("all_to_all", 8, 2e-3 + 1e-2 + 1.0 + 3e-1 + 8e-1),  # 3 peers inside, 4 outside
        ("all_gather", 4, 1e-3 + 3e-2),
        ("all_gather", 8, 2e-3 + 6e-2 + 1.0),
        ("ring_shift", 4, 1e-3 + 1e-2),
        ("ring_shift", 8, 2e-3 + 1.0),
        ("all_reduce", 4, 1e-3 + 6e-2),
        ("all_reduce", 8, 2e-3 + 2 * (3e-2 + 1.0)),  # the tree: 3 steps inside, 1 level across
    ],
)
def test_latency_by_hand(kind, ranks, seconds):
    assert collective_seconds(kind, 0, ranks, SLOW) == pytest.approx(seconds)


def test_oversubscription_and_shared_interfaces_slow_what_crosses():
    shared = replace(PLAIN, nics_per_node=1)
    for kind in SENT_PER_INPUT_BYTE:
        base, one, over = (
            collective_seconds(kind, 1e9, 8, cluster)
            for cluster in (PLAIN, shared, replace(PLAIN, oversubscription=4.0))
        )
        assert one == pytest.approx(base if kind == "ring_shift" else 4 * base)  # one rank crosses
        assert over == pytest.approx(4 * base)


def test_ranks_share_the_interfaces_of_those_that_cross_with_them():
    shared = replace(PLAIN, nics_per_node=1)
    rate = shared.inter.bandwidth("*")
    # 4 + 1 ranks: 4 of a node send a fifth each to the one, and it as much to them.
    lone = collective_seconds("all_to_all", 1e9, 5, shared)
    assert lone == pytest.approx(4 / 5 * 1e9 / rate)
    assert collective_seconds("all_gather", 1e9, 5, shared) == pytest.approx(4e9 / rate)
    # Four groups of two, each across the nodes: they begin together, and share the one.
    many, one = (collective_seconds("ring_shift", 1e9, 2, shared, stride=4, p=p) for p in (8, None))
    assert (many, one) == (pytest.approx(4e9 / rate), pytest.approx(1e9 / rate))
    more = replace(PLAIN, nics_per_node=8)  # two interfaces for each device
    assert collective_seconds("ring_shift", 1e9, 8, more) == pytest.approx(0.5e9 / rate)


def test_a_hierarchical_all_to_all_sends_fewer_messages_and_more_bytes():
    slow = replace(SLOW, gpus_per_node=4, nodes=8)
    ways = {way: replace(slow, all_to_all=way) for way in ("flat", "hierarchical", "best")}
    few, many = (
        {way: collective_seconds("all_to_all", n, 32, cluster) for way, cluster in ways.items()}
        for n in (0, 1e12)
    )
    link, out = slow.intra, slow.inter
    fixed = sum(each.alpha("all_to_all") + each.step_s for each in (link, out))
    messages = 3 * link.message_s + 7 * out.message_s
    assert few["hierarchical"] == pytest.approx(fixed + messages)
    assert few["flat"] > few["hierarchical"] == few["best"]
    assert many["hierarchical"] > many["flat"] == many["best"]
    bytes_s = 1e12 * (3 / 4 / link.bandwidth("all_to_all") + 7 / 8 / out.bandwidth("all_to_all"))
    assert many["hierarchical"] - few["hierarchical"] == pytest.approx(bytes_s)
    uneven = [collective_seconds("all_to_all", 1e9, 6, cluster) for cluster in ways.values()]
    assert len(set(uneven)) == 1


def test_what_only_crosses_has_the_networks_latency_and_its_rate_by_kind():
    alone = replace(SLOW, gpus_per_node=1, nodes=4)
    assert collective_seconds("ring_shift", 0, 4, alone) == pytest.approx(2e-3 + 1.0)
    assert collective_seconds("all_to_all", 0, 4, alone) == pytest.approx(2e-3 + 1.0 + 3 * 2e-1)
    by_kind = wb.Link("out", {"*": 10e9, "all_to_all": 1e9})
    slow = replace(PLAIN, inter=by_kind)
    assert collective_seconds("all_to_all", 1e9, 8, slow) == pytest.approx(0.5)
    assert collective_seconds("all_gather", 1e9, 8, slow) == pytest.approx(7 / 40)


@pytest.mark.parametrize("p", [4, 6, 8, 12, 24])
@pytest.mark.parametrize("gpus_per_node", [1, 2, 3, 4, 5, 6, 8])
def test_groups_lie_where_their_ranks_do(p, gpus_per_node):
    """Every mesh of two axes, both axes, against a list of all groups."""
    for inner in (n for n in range(1, p + 1) if p % n == 0):
        ranks = list(range(p))
        rows = [ranks[i : i + inner] for i in range(0, p, inner)]
        for groups, stride in ((rows, 1), (list(zip(*rows, strict=True)), inner)):
            lying = set()
            for group in groups:
                on_node = Counter(rank // gpus_per_node for rank in group).values()
                lying.add(Placement(len(on_node), max(on_node), min(on_node)))
            assert placements(len(groups[0]), gpus_per_node, stride, p) == lying


def test_all_wait_for_the_group_that_crosses():
    three = replace(PLAIN, gpus_per_node=3)
    inside, worst = (collective_seconds("all_gather", 1e9, 2, three, p=p) for p in (2, 6))
    assert (inside, worst) == pytest.approx((1 / 100, 1 / 10))  # {2, 3} lie on two nodes


def test_places():
    assert place(8, 8) == Placement(1, 8, 8)
    assert place(4, 8, stride=4) == Placement(2, 2, 2)
