"""Clusters: every number has a source, and own ones take one call."""

import math
import pickle
from dataclasses import replace

import pytest
from small_spec import spec

import workbench as wb
from workbench.cluster import DEVICES, KINDS, Figure, figures_of
from workbench.units import GB

OWN = wb.Cluster("ours", wb.Device("ours", 8 * GB, 1e13), gpus_per_node=4,
                 intra=wb.Link("PCIe", 10e9))  # fmt: skip


@pytest.mark.parametrize("name", wb.CLUSTERS)
def test_every_number_of_a_preset_says_where_it_is_from(name):
    cluster = wb.CLUSTERS[name]
    assert cluster.name == name
    rows = figures_of(cluster)
    for row in rows:
        assert row.kind in [*KINDS, "not found"], row
        assert row.source, row
        assert (row.value is None) == (row.kind == "not found"), row
        if row.kind == "given":  # how many there are is up to whoever runs
            assert row.name in {
                "gpus_per_node",
                "nodes",
                "oversubscription",
                "step_overhead_s",
                "overlap",
            }
    rates = [row for row in rows if row.unit in ("bytes/s", "flop/s") and row.value]
    assert all(1e9 < row.value < 1e16 for row in rates)


def test_what_is_reached_is_below_the_data_sheet():
    for device in DEVICES.values():
        assert device.attention_rate < device.matmul_rate < device.peak_flops_per_s


def test_a_preset_without_a_public_network_says_so():
    rows = {row.part: row for row in figures_of(wb.CLUSTERS["8x-l40s"])}
    assert rows["network"].kind == "not found"
    assert "no public figure" in rows["network"].source
    with pytest.raises(ValueError, match=r"p=16.*no public figure.*inter="):
        wb.CLUSTERS["8x-l40s"].check_ranks(16)


def test_figures_keep_their_source():
    peak = wb.CLUSTERS["dgx-h100"].device.peak_flops_per_s
    again = pickle.loads(pickle.dumps(peak))
    assert (again, again.kind, again.source) == (peak, peak.kind, peak.source)
    assert type(peak * 2) is float
    assert isinstance(peak, Figure)


def test_own_clusters():
    assert OWN.gpus == 4
    assert OWN.nic_bytes_per_s is None
    assert OWN.device.matmul_rate == 1e13
    assert math.isinf(OWN.device.memory_rate)
    two = replace(OWN, nodes=2, inter=wb.Link("Ethernet", 2e9), nics_per_node=2, oversubscription=4)
    assert two.nic_bytes_per_s == 2e9 * 2 / 4 / 4
    by_kind = wb.Link("NVLink", {"*": 1e9, "all_to_all": 2e9})
    assert (by_kind.bandwidth("all_to_all"), by_kind.bandwidth("ring_shift")) == (2e9, 1e9)


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: replace(OWN, nodes=2), "no inter= link"),
        (lambda: replace(OWN, gpus_per_node=0), "gpus_per_node.*at least 1"),
        (lambda: replace(OWN, oversubscription=0.5), "oversubscription.*at least 1.*0.5"),
        (lambda: replace(OWN, oversubscription=math.nan), "oversubscription.*positive number"),
        (lambda: replace(OWN, oversubscription=math.inf), "oversubscription.*at least 1"),
        (lambda: replace(OWN, step_overhead_s=-1), "step_overhead_s.*0 or more, got -1"),
        (lambda: wb.Link("x", 1e9, alpha_s=-1), "alpha_s for '\\*' of x.*0 or more"),
        (lambda: wb.Link("x", 1e9, {"*": 0.0, "all_reduce": math.nan}), "alpha_s for 'all_reduce'"),
        (lambda: wb.Link("x", 1e9, step_s=True), "step_s of x must be a number of seconds"),
        (lambda: wb.Link("x", 1e9, message_s=math.inf), "message_s of x"),
        (lambda: wb.Device("x", 1, 1.0, launch_s=-1e-6), "launch_s of x"),
        (lambda: wb.Device("x", 1, 1.0, attention_row_s=math.nan), "attention_row_s of x"),
        (lambda: wb.Device("x", True, 1.0), "memory_bytes of x must be a positive number"),
        (lambda: OWN.check_ranks(0), "p .the number of ranks. must be an integer of at least 1"),
        (lambda: wb.Link("x", 0), "must be a positive number"),
        (lambda: wb.Link("x", {"all_to_all": 1e9}), "need '\\*'"),
        (lambda: wb.Device("x", 1, -1.0), "peak_flops_per_s of x must be a positive number"),
        (lambda: OWN.check_ranks(5), "p=5 ranks do not fit.*4"),
    ],
)
def test_impossible_clusters(make, rule):
    with pytest.raises(ValueError, match=rule):
        make()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"intra": None}, "intra of cluster .* must be a Link"),
        ({"device": None}, "device of cluster .* must be a Device"),
        ({"alone": "x"}, "alone of cluster .* must be a Device"),
        ({"inter": "x"}, "inter of cluster .* must be a Link"),
        ({"overlap": "x"}, "overlap of cluster .* is a share"),
        ({"gradient_sync": None}, "gradient_sync of cluster .* must be one of"),
    ],
)
def test_a_clusters_parts_are_looked_at(changed, words):
    cluster = replace(wb.CLUSTERS["dgx-h100"])
    for name, value in changed.items():
        object.__setattr__(cluster, name, value)
    with pytest.raises(ValueError, match=words):
        cluster.__post_init__()


def test_a_stage_is_causal_or_not():
    with pytest.raises(ValueError, match="causal must be True or False, got 'no'"):
        wb.Stage.__new__.__wrapped__(wb.Stage, "a", causal="no")


@pytest.mark.parametrize(
    ("tokens", "p", "tile", "times"),
    [(4, 1, 8, 4), (8, 1, 8, 1), (12, 1, 8, (16 / 12) ** 2), (16, 2, 16, 4), (16, 2, 8, 1)],
)
def test_attention_computes_whole_tiles_of_queries_and_of_keys(tokens, p, tile, times):
    """A ring's blocks are shorter: 8 queries of 8 keys, with 16 tokens on 2 ranks."""
    model, name = spec(f"tokens={tokens}", ("tokens",)), "ring" if p > 1 else "single"
    tiled = replace(OWN, device=replace(OWN.device, attention_tile=tile))
    found, needed = (wb.predict(model, name, c, p=p) for c in (tiled, OWN))
    assert found.attention_s == pytest.approx(times * needed.attention_s)
    assert found.matmul_s == needed.matmul_s
