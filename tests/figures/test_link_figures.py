"""Nodes, links and checked steps in pictures: numbers are those of the data."""

import statistics
from dataclasses import replace

import pytest

import workbench as wb
from workbench import figures
from workbench.calibration import Checked, Point, Row
from workbench.planner import band_of, scaling

BOX = wb.CLUSTERS["dgx-h100"]
SPEC = wb.PRESETS["toy-video"]


def test_a_node_is_drawn_with_its_numbers():
    figure = figures.cluster_picture(BOX)
    words = [text.get_text() for text in figure.axes[0].texts]
    assert sum(word.startswith("device ") for word in words) == BOX.gpus_per_node
    assert any("370 GB/s" in word for word in words)
    assert "7.6 times slower" in figures.caption(figure)
    alone = figures.cluster_picture(wb.CLUSTERS["8x-4090"])
    assert "no network" in [text.get_text() for text in alone.axes[0].texts]
    assert figures.caption(alone).endswith("Nothing leads out of it.")


def test_dots_are_means_and_lines_are_fits():
    rows = [Row(kind, size, (1e-4 + size / 1e9, 1e-4 + size / 1e9, 4e-4 + size / 1e9))
            for kind in ("all_to_all", "ring_shift") for size in (1e4, 1e5, 1e6)]  # fmt: skip
    figure = figures.link_lines(rows, ["all_to_all"])
    dots, fitted = figure.data
    assert list(dots.y) == [statistics.fmean(row.seconds) for row in rows[:3]]
    assert list(fitted.y) == pytest.approx([2e-4 + size / 1e9 for size in fitted.x])
    assert (fitted.x[0], fitted.x[-1]) == pytest.approx((1e4, 1e6))
    assert len(fitted.x) > 20  # between the dots, too: a line bends on logarithmic axes
    assert "all_to_all: alpha 200 µs" in figures.caption(figure)
    assert "1 GB/s" in figures.caption(figure)


def test_steps_lie_where_they_were_predicted_and_measured():
    cost = wb.predict(SPEC, "dsp", BOX, p=2)
    row = Checked(Point(SPEC, "dsp", 2), cost, (cost.seconds / 2,) * 3)
    wild = replace(row, seconds=(1.0, 2.0, 3.0))
    figure = figures.checked_steps([row, wild])
    dots = next(trace for trace in figure.data if trace.name == "dsp")
    assert list(dots.x) == [row.median_s, 2.0]
    assert list(dots.y) == [cost.seconds] * 2
    assert list(dots.marker.symbol) == ["circle", "circle-open"]
    text = figures.caption(figure)
    assert "median error 100%; worst +100% (dsp, p=2" in text
    assert "1 hollow" in text


def test_bands_are_drawn_from_low_to_high_and_hatched_where_unchecked():
    band = band_of([-0.2, 0.0, 0.1], checked_to=4, source="three steps")
    points = scaling(SPEC, "dsp", BOX, ps=[1, 2, 4, 8, 16], band=band)
    figure = figures.scaling_chart({"dsp, strong": points, "dsp, weak": points})
    checked, beyond, curve = figure.data[:3]
    ends = [1.1 * q.cost.seconds for q in points] + [0.8 * q.cost.seconds for q in points[::-1]]
    assert list(checked.x) == [1, 2, 4, 4, 2, 1]
    assert list(checked.y) == pytest.approx([*ends[:3], *ends[7:]])
    assert list(beyond.x) == [4, 8, 16, 16, 8, 4]
    assert (checked.fillpattern.shape, beyond.fillpattern.shape) == (None, "/")
    assert list(curve.y) == [q.cost.seconds for q in points]
    assert figure.data[-1].line.dash == "dash"
    text = figures.caption(figure)
    assert "Bands hold 50% of such errors: 0.80 to 1.10 times, from three steps." in text
    assert "Beyond 4 ranks nothing was checked" in text
