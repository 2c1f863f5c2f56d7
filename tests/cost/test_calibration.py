"""This machine as a cluster: the arithmetic on made-up times, the shape of what comes of it."""

import math
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest

import workbench as wb
from workbench import calibration
from workbench.calibration import Checked, Measured, Point, Row, check, cluster_of, line, measure
from workbench.cluster import figures_of
from workbench.collectives import SENT_PER_INPUT_BYTE, sent_bytes
from workbench.wire import collective_seconds

SIZES = [2.0**k for k in range(12, 23, 2)]
KERNELS = {"matmul": 4e10, "attention": 2e10, "elementwise": 5e9, "copy": 3e9, "launch": 1e5}
#: What takes its time whatever its size: a step, and a query of an attention.
BESIDES = {"launch": 1e-3, "attention": 7e-6}
SPEC = wb.TransformerSpec(dims={"time": 4, "space": 8}, stages=("space", "time"), d_model=16,
                          num_heads=2, num_layers=1)  # fmt: skip


def noisy(seconds, repeats=9, spread=0.05, seed=0):
    """Repeats that differ, as on a machine: multiplied by something near 1."""
    drawn = np.random.default_rng(seed).lognormal(0, spread, repeats)
    return tuple(float(seconds * factor) for factor in drawn)


def kernels(slower=1.0):
    """Exact times of kernels at three sizes each, on a line."""
    return tuple(
        Row(kind, size, (slower * (size / rate + BESIDES.get(kind, 0)),) * 3)
        for kind, rate in KERNELS.items()
        for size in (1e6, 1e7, 1e8)
    )


def made_up(p=2):
    links = tuple(
        Row(kind, sent_bytes(kind, int(size), p), (1e-4 * (1 + i) + size * (1 + i) / 1e9,) * 3)
        for i, kind in enumerate(SENT_PER_INPUT_BYTE)
        for size in SIZES
    )
    rows = kernels(2.0) if p > 1 else kernels()
    return Measured(p, "float32", "gloo", "a core", 10**9, kernels(), rows, links if p > 1 else ())


def test_a_line_is_recovered():
    found = line(SIZES, [[2e-4 + size / 3e9] * 5 for size in SIZES])
    assert found.alpha_s == pytest.approx(2e-4)
    assert 1 / found.per_unit_s == pytest.approx(3e9)
    assert found.misfit == pytest.approx(0, abs=1e-9)
    assert found.alpha_interval == pytest.approx((2e-4, 2e-4))


def test_intervals_cover_the_truth_as_often_as_they_say():
    covered = np.zeros(2)
    for seed in range(60):
        times = [noisy(2e-4 + x / 3e9, seed=(seed, i)) for i, x in enumerate(SIZES)]
        found = line(SIZES, times, seed=seed)
        low, high = found.alpha_interval
        covered[0] += low <= 2e-4 <= high
        covered[1] += found.per_unit_interval[0] <= 1 / 3e9 <= found.per_unit_interval[1]
        assert low < found.alpha_s < high
    assert (covered / 60 > 0.85).all()
    assert (covered < 60).any()  # an interval that holds everything would say nothing


def test_no_coefficient_is_negative_and_misfit_is_told():
    through = line([1.0, 2.0, 4.0], [[1.0] * 3, [2.1] * 3, [4.4] * 3])
    assert through.alpha_s == 0
    flat = line([1.0, 2.0, 4.0], [[3.0] * 3, [2.9] * 3, [2.8] * 3])
    assert flat.per_unit_s == 0
    assert flat.alpha_s == pytest.approx(2.9, rel=0.01)
    zero = line([1.0, 2.0], [[3.0] * 3, [4.0] * 3], through_zero=True)
    assert zero.alpha_s == 0
    assert zero.alpha_interval == (0, 0)
    assert 2 < zero.per_unit_s < 3
    bent = line([1.0, 10.0, 100.0], [[1.0] * 3, [1.0] * 3, [100.0] * 3])
    assert bent.misfit > 0.5


@pytest.mark.parametrize(
    ("sizes", "times", "rule"),
    [
        ([1.0], [[1.0]], "two different sizes or more"),
        ([1.0, 1.0], [[1.0], [1.0]], "two different sizes or more"),
        ([1.0, 2.0], [[1.0], [1.0, 2.0]], "as many repeats"),
        ([1.0, 2.0], [[1.0], [0.0]], "must be positive, got 0.0 s"),
    ],
)
def test_lines_that_cannot_be(sizes, times, rule):
    with pytest.raises(ValueError, match=rule):
        line(sizes, times)


def test_rates_and_latencies_come_out_as_they_were_made_up():
    found = cluster_of(made_up())
    for device, slower in ((found.alone, 1), (found.device, 2)):
        assert device.matmul_rate == pytest.approx(4e10 / slower)
        assert device.attention_rate == pytest.approx(2e10 / slower)
        assert device.memory_rate == pytest.approx(5e9 / slower)
        assert device.copy_rate == pytest.approx(3e9 / slower)
        assert device.launch_s == pytest.approx(1e-5 * slower)
        assert device.attention_row_s == pytest.approx(2e-6 * slower)
        assert device.peak_flops_per_s == pytest.approx(4e10 / slower)
    assert found.step_overhead_s == pytest.approx(2e-3)
    for i, kind in enumerate(SENT_PER_INPUT_BYTE):
        took = collective_seconds(kind, 2**16, 2, found)
        assert took == pytest.approx(1e-4 * (1 + i) + 2**16 * (1 + i) / 1e9)


def test_late_messages_count_as_often_as_they_come_and_late_kernels_do_not():
    made = made_up()
    late = [
        tuple(row._replace(seconds=(*row.seconds[:2], row.seconds[2] + 3e-3)) for row in rows)
        for rows in (made.links, made.together)
    ]
    found, usual = cluster_of(replace(made, links=late[0], together=late[1])), cluster_of(made)
    later = found.intra.alpha("all_to_all") - usual.intra.alpha("all_to_all")
    assert later == pytest.approx(1e-3)
    assert found.device.matmul_rate == pytest.approx(usual.device.matmul_rate)


def test_gradients_are_summed_as_run_step_does_unless_asked():
    spec = wb.PRESETS["stdit-xl-2"]
    hides = replace(cluster_of(made_up()), overlap=1.0)
    here, flat, ddp = (
        wb.predict(spec, "dsp", hides, p=2, dtype="float32", gradient_sync=g).seconds
        for g in (None, "flat", "ddp")
    )
    assert here == flat > ddp
    with pytest.raises(ValueError, match=r"gradient_sync.* must be one of"):
        replace(hides, gradient_sync="later")


def test_every_figure_says_that_it_was_measured_and_how_well():
    found = cluster_of(made_up())
    rows = [row for row in figures_of(found) if row.unit in ("flop/s", "bytes/s", "s")]
    given = {"step_s", "message_s"}
    here = [row for row in rows if row.name not in given and row.part != "network"]
    assert {row.kind for row in here} == {"measured"}
    for figure in (found.device.matmul_flops_per_s, found.intra.alpha("all_reduce")):
        low, high = figure.interval
        assert low <= figure <= high
        assert re.search(r"95% in .* to .*off the line", figure.source)
        assert pickle.loads(pickle.dumps(figure)).interval == figure.interval


def test_one_rank_is_predicted_as_it_is_alone():
    found = cluster_of(made_up())
    alone, both = (wb.predict(SPEC, "single", found, p=p, dtype="float32") for p in (1, 2))
    assert both.compute_s == pytest.approx(2 * alone.compute_s)
    assert wb.predict(SPEC, "single", replace(found, alone=None), p=1).compute_s > alone.compute_s
    with pytest.raises(ValueError, match="p=3 ranks do not fit"):
        wb.predict(SPEC, "dsp", found, p=3)


def test_one_rank_has_no_links():
    found = cluster_of(made_up(1))
    assert (found.gpus, found.alone, math.isinf(found.intra.bandwidth("*"))) == (1, None, True)
    assert wb.predict(SPEC, "single", found, p=1).communication_s == 0


def test_wrong_asks_are_refused():
    with pytest.raises(ValueError, match=r"p .*must be .*at least 1.*0"):
        wb.calibrate(0)
    with pytest.raises(ValueError, match=r"dtype must be one of float32.*'int8'"):
        wb.calibrate(1, dtype="int8")
    with pytest.raises(ValueError, match="num_heads=2, p=3"):
        check([Point(SPEC, "ulysses", 3)], cluster_of(made_up()))


def test_noise_decides_what_counts():
    cost = wb.predict(SPEC, "single", cluster_of(made_up()), p=1)
    one = Checked(Point(SPEC, "single", 1), cost, (cost.seconds * 0.5,) * 3)
    assert one.error == pytest.approx(1)
    assert (one.noise, one.counts) == (0, True)
    wild = replace(one, seconds=(1.0, 2.0, 3.0))
    assert (wild.noise, wild.counts) == (0.5, False)
    assert calibration.median_error([one, wild]) == pytest.approx(1)
    assert math.isnan(calibration.median_error([wild]))


def test_a_gpu_waits_for_its_host_and_computes_whole_tiles():
    """Of a step the GPU's own time is known apart; a repeat below it is noise."""
    gpu = replace(made_up(1), waits=(3e-4, 5e-4, -1e-4, 4e-4, 6e-4))
    found = cluster_of(gpu)
    assert float(found.step_overhead_s) == pytest.approx(4e-4)
    assert found.step_overhead_s.interval[0] >= 0
    assert (found.device.attention_tile, cluster_of(made_up()).device.attention_tile) == (128, None)


def test_ranks_without_a_gpu_of_their_own_are_refused(monkeypatch):
    monkeypatch.setattr(calibration.measured.torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match=r"p=2 ranks need a GPU each.*take p=1 or fewer"):
        measure(2)


@pytest.fixture(scope="module")
def here():
    return measure(2, quick=True, progress=False)


def test_this_machine_is_measured(here):
    found = cluster_of(here)
    assert (found.gpus, found.nodes) == (2, 1)
    kinds = {row.kind for row in here.links}
    assert kinds == set(SENT_PER_INPUT_BYTE) == set(found.intra.rates) - {"*"}
    assert {row.kind for row in here.together} == set(KERNELS)
    assert all(len(row.seconds) == 3 and min(row.seconds) > 0 for row in here.links + here.alone)
    cost = wb.predict(SPEC, "dsp", found, p=2, dtype="float32")
    assert cost.seconds > cost.communication_s > 0


def test_steps_are_predicted_and_then_run(here):
    rows = check([Point(SPEC, "dsp", 2), Point(SPEC, "single", 1)], cluster_of(here), repeats=3)
    assert [row.point.p for row in rows] == [2, 1]
    for row in rows:
        assert len(row.seconds) == 3
        assert row.median_s > 0
        assert row.predicted.strategy == row.point.strategy
        assert row.predicted.seconds > 0


def test_where_no_slope_is_seen_the_rate_is_the_slowest_that_the_times_allow():
    """A busy machine may take longer for less; a bandwidth without an end is no measurement."""
    flat = tuple(
        Row(kind, size, (seconds,) * 3)
        for kind in ("matmul", "attention", "elementwise", "copy", "launch")
        for size, seconds in ((1e6, 1e-2), (1e7, 9e-3))
    )
    links = tuple(
        Row(kind, size, (seconds,) * 3)
        for kind in SENT_PER_INPUT_BYTE
        for size, seconds in ((4e3, 1e-3), (4e6, 9e-4))
    )
    found = cluster_of(Measured(2, "float32", "gloo", "a core", 10**9, flat, flat, links))
    assert found.intra.bandwidth("all_to_all") == pytest.approx(4e6 / 9e-4)
    assert found.device.attention_rate <= found.device.peak_flops_per_s < 1e12
    assert found.device.copy_rate == pytest.approx(1e7 / 9e-3)
