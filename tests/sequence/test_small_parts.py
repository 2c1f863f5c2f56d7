"""Units, devices, and who sends what to whom."""

import pytest

import workbench as wb
from workbench.cluster import DEVICES
from workbench.collectives import Collective, bytes_to_peers
from workbench.dims import Dims
from workbench.strategies import strategies_that_run
from workbench.units import GB, human_bytes, human_seconds


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_600, "1 MB"), (2.5, "2.5 B"),
     (-1500, "-1.5 kB"), (3 * 10**12, "3 TB")],
)  # fmt: skip
def test_bytes_as_people_read_them(count, text):
    assert human_bytes(count) == text


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [(119.9, "120 s"), (120, "2 min"), (7200, "2 h"), (0.9996, "1 s"), (1e-6, "1 µs"),
     (2e-12, "0.002 ns")],
)  # fmt: skip
def test_durations_as_people_read_them(duration_s, text):
    assert human_seconds(duration_s) == text


def test_devices_are_those_of_the_data_sheets():
    for device in DEVICES.values():
        assert 20 * GB < device.memory_bytes < 1000 * GB
        assert 1e14 < device.peak_flops_per_s < 1e16
        assert "data sheet" in device.source


@pytest.mark.parametrize("name", [name for name in wb.STRATEGIES if name != "single"])
def test_what_goes_to_the_peers_adds_up(name):
    for p in (2, 4):
        for record in wb.fake_step(wb.PRESETS["toy-video"], name, p=p).log:
            for rank in range(p):
                to = bytes_to_peers(record, rank, p)
                assert sum(to) == record.sent_bytes
                assert to[rank] == 0
                assert (to.count(0) == 1) == (record.kind == "all_to_all" or p == 2)


def test_one_rank_sends_to_nobody():
    alone = Collective("ring_shift", "sp", "time", "float32", 8, 0, "forward", 0, 0)
    assert bytes_to_peers(alone, 0, 1) == [0]


def test_dims_compare_with_mappings_only():
    assert Dims({"a": 1}) != [("a", 1)]
    assert repr(Dims({"a": 1})) == "{'a': 1}"
    assert len({Dims({"a": 1, "b": 2}), Dims({"a": 1, "b": 2}), Dims({"b": 2, "a": 1})}) == 2


def test_a_gradient_bucket_per_dtype():
    def on_rank(rank, comm):
        import torch

        gradients = [torch.full((n,), 1.0 + rank, dtype=t) for n, t in
                     ((3, torch.float32), (4, torch.bfloat16), (2, torch.float32))]  # fmt: skip
        comm.sum_gradients(gradients)
        return gradients, [(r.dtype, r.input_bytes, r.sent_bytes) for r in comm.log]

    for gradients, log in wb.run_local(on_rank, 2):
        assert all((g == 3).all() for g in gradients)
        assert log == [("float32", 24, 24), ("bfloat16", 8, 8)]


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("cogvideox-5b", 5.0e9),  # arXiv:2408.06072, with the embeddings that are left out here
        ("llama-3-8b", 8.03e9 - 2 * 128_256 * 4096),  # arXiv:2407.21783, less the embeddings
        ("vivit-l-3", 0.403e9),  # ViT-L's 303 million and a second attention in each of 24 layers
        ("timesformer-b", 0.1214e9),  # arXiv:2102.05095, table 2: 121.4 million
    ],
)
def test_presets_have_about_the_published_weights(name, published):
    assert wb.PRESETS[name].parameters == pytest.approx(published, rel=0.1)


@pytest.mark.parametrize("name", wb.PRESETS)
def test_each_preset_says_where_it_is_from_and_can_be_cut(name):
    preset = wb.PRESETS[name]
    assert len(preset.source) > 20
    assert strategies_that_run(preset, 2)
    every_dim = any(len(stage) == len(preset.dims) for stage in preset.stages)
    assert ("dsp" in strategies_that_run(preset, 2)) is not every_dim
