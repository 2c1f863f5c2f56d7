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
        assert one == pytest.approx(4 * base)
        assert over == pytest.approx(4 * base)


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
