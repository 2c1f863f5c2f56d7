"""Charts of meshes and of balance: what is drawn and counted is what logs and schedules say."""

from xml.etree import ElementTree

import pytest
from drawn import spec
from matplotlib.figure import Figure

import workbench as wb
from workbench import figures
from workbench.figures.balance import _chart
from workbench.figures.marks import Area, Arrow
from workbench.figures.meshes import _CROSSES, _mesh

TEXT = spec("tokens=16", (wb.Stage("tokens", causal=True),), heads=8, d_model=16)
MESHES = [
    ("usp", {"ring": 2, "ulysses": 4}),
    ("usp", {"ulysses": 4, "ring": 2}),
    ("usp", {"ulysses": 2, "ring": 4}),
    ("usp", {"data": 2, "ulysses": 2, "ring": 2}),
    ("usp", {"ulysses": 2, "data": 2, "ring": 2}),
    ("usp", {"ulysses": 1, "ring": 8}),
    ("ring", {"sp": 8}),
    ("megatron-sp", {"sp": 4, "data": 2}),
]


def traffic(name, mesh, per_node=None, **options):
    found = figures.axis_traffic(
        wb.fake_step(TEXT, name, p=8, mesh=mesh), mesh, per_node, **options
    )
    return {each.axis: each for each in found}


@pytest.mark.parametrize(("name", "mesh"), MESHES)
def test_traffic_is_the_logs(name, mesh):
    step = wb.fake_step(TEXT, name, p=8, mesh=mesh)
    found = figures.axis_traffic(step, mesh)
    assert [each.axis for each in found] == list(mesh)
    assert sum(each.sent_bytes for each in found) == step.sent_bytes
    for each in found:
        assert sorted(rank for group in each.groups for rank in group) == list(range(8))
        assert {len(group) for group in each.groups} == {mesh[each.axis]}
        assert each.crossing_bytes == 0  # all ranks in one node
    # With each rank in a node of its own all bytes cross.
    alone = figures.axis_traffic(step, mesh, 1)
    assert sum(each.crossing_bytes for each in alone) == 8 * step.sent_bytes


def test_what_crosses_nodes():
    """By hand: M = 16 x 16 x 4 bytes; a ring of 2 between the nodes sends 4 x 2M/8 a rank."""
    m = TEXT.activation_bytes()
    found = traffic("usp", {"ring": 2, "ulysses": 4}, 4)
    assert found["ring"].crossing_bytes == 8 * 4 * 2 * m // 8
    assert found["ulysses"].crossing_bytes == 0
    assert found["ulysses"].kinds == ("all_to_all",)
    # A plain ring crosses twice; Ulysses sends 4 of 7 parts across.
    ring, ulysses = (traffic(name, {"sp": 8}, 4)["sp"] for name in ("ring", "ulysses"))
    assert ring.crossing_bytes == 2 * ring.sent_bytes
    assert ulysses.crossing_bytes == 8 * ulysses.sent_bytes * 4 // 7
    forward = traffic("ring", {"sp": 8}, 4, phases=["forward"])["sp"]
    assert forward.sent_bytes == 7 * 2 * m // 8


@pytest.mark.parametrize("per_node", [None, 2, 3, 4])
@pytest.mark.parametrize(("name", "mesh"), MESHES)
def test_a_mesh_is_drawn(name, mesh, per_node):
    step = wb.fake_step(TEXT, name, p=8, mesh=mesh)
    page = _mesh(step, mesh, per_node)
    areas = [mark for mark in page.marks if isinstance(mark, Area)]
    arrows = [mark for mark in page.marks if isinstance(mark, Arrow)]
    points = [p for a in areas for p in a.points] + [p for a in arrows for p in (a.start, a.end)]
    assert all(0 <= x <= page.width and 0 <= y <= page.height for x, y in points)
    ranks = [area for area in areas if area.tip.startswith("rank")]
    assert len(ranks) == 8 * len(mesh)
    found = traffic(name, mesh, per_node)
    crossing = any(each.crossing_bytes for each in found.values())
    red = [a for a in areas if a.fill == _CROSSES] + [a for a in arrows if a.colour == _CROSSES]
    assert bool(red) == crossing
    assert bool([area for area in areas if area.dashed]) == (per_node is not None)
    assert ElementTree.fromstring(figures.mesh_svg(step, mesh, per_node)).get("viewBox")


def test_arrows_and_bars_join_the_groups():
    step = wb.fake_step(TEXT, "usp", p=8, mesh={"ulysses": 2, "ring": 4})
    page = _mesh(step, {"ulysses": 2, "ring": 4}, None)
    arrows = [mark for mark in page.marks if isinstance(mark, Arrow)]
    assert len(arrows) == 2 * 4  # two rings of four hops
    assert {arrow.heads for arrow in arrows} == {1}
    bars = [a for a in page.marks if isinstance(a, Area) and not a.tip]
    assert len(bars) == 4
    pair = {"ring": 2, "ulysses": 4}
    page = _mesh(wb.fake_step(TEXT, "usp", p=8, mesh=pair), pair, None)
    assert {mark.heads for mark in page.marks if isinstance(mark, Arrow)} == {2}


def test_a_meshs_caption():
    mesh = {"ring": 2, "ulysses": 4}
    step = wb.fake_step(TEXT, "usp", p=8, mesh=mesh)
    figure = figures.mesh_chart(step, mesh, 4)
    assert isinstance(figure, Figure)
    text = figures.caption(figure)
    for words in ("ring 2 x ulysses 4", "along ring 1.02 kB by ring_shift", "A bar", "Arrows",
                  "nodes of 4 ranks; in all 8.19 kB go from node to node (red)"):  # fmt: skip
        assert words in text
    inside = figures.mesh_caption(wb.fake_step(TEXT, "ulysses", p=8, mesh={"data": 2, "sp": 4}),
                                  {"data": 2, "sp": 4}, 4)  # fmt: skip
    assert "in all 0 B go from node to node." in inside
    assert "Arrows" not in inside
    assert "along data 0 B;" in inside
    assert "node" not in figures.mesh_caption(step, mesh)


@pytest.mark.parametrize("order", figures.ORDERS)
@pytest.mark.parametrize(("size", "p"), [(32, 4), (7, 3), (2, 4), (9, 1)])
def test_balance_counts_each_seen_pair(order, size, p):
    found = figures.balance(size, p, order)
    assert sorted(i for tokens in found.held for i in tokens) == list(range(size))
    assert found.seen == size * (size + 1) // 2 == sum(found.totals)
    for rank, tokens in enumerate(found.held):  # by brute force
        for hop, pairs in enumerate(found.pairs[rank]):
            keys = found.held[(rank - hop) % p]
            assert pairs == sum(key <= query for query in tokens for key in keys)
    assert found.excess == max(found.totals) * p / sum(found.totals)
    free = figures.balance(size, p, order, causal=False)
    assert sum(free.totals) == free.seen == size**2


def test_a_zigzag_is_even_at_every_hop():
    assert len(set(figures.balance(32, 4, "zigzag").pairs)) == 1
    assert figures.balance(32, 4, "zigzag").excess == 1
    assert figures.balance(512, 4, "contiguous").excess == pytest.approx(7 / 4, rel=0.01)


def test_a_balance_is_drawn():
    found = [figures.balance(20, 3, order, window=2) for order in figures.ORDERS]
    page = _chart(found)
    areas = [mark for mark in page.marks if isinstance(mark, Area)]
    assert all(0 <= x <= page.width and 0 <= y <= page.height for a in areas for x, y in a.points)
    tokens = [area for area in areas if area.tip.startswith("token")]
    assert len(tokens) == 3 * 20
    pieces = [area for area in areas if "hop" in area.tip]
    assert len(pieces) == sum(pairs > 0 for each in found for row in each.pairs for pairs in row)
    heights = [max(y for _, y in a.points) - min(y for _, y in a.points) for a in pieces]
    counts = [int(area.tip.split(": ")[1].split()[0].replace(",", "")) for area in pieces]
    ratios = [height / count for height, count in zip(heights, counts, strict=True)]
    assert max(ratios) == pytest.approx(min(ratios))
    assert ElementTree.fromstring(figures.balance_svg(found)).get("viewBox")
    text = figures.caption(figures.balance_chart(found))
    assert f"Pairs that are seen: {found[0].seen}; computed, masked ones too: contiguous" in text
    assert "masked" not in figures.balance_caption([figures.balance(16, 2, "striped")])
    assert _chart([figures.balance(32, 16, "zigzag")]).marks


def test_balance_refuses_what_is_not():
    with pytest.raises(ValueError, match="order='snake': the orders are contiguous, zigzag"):
        figures.balance(8, 2, "snake")
    with pytest.raises(ValueError, match="the number of ranks"):
        figures.balance(8, 0, "zigzag")
    step = wb.fake_step(TEXT, "ring", p=8)
    with pytest.raises(ValueError, match="has 4 ranks, but p=8"):
        figures.axis_traffic(step, {"sp": 4})
