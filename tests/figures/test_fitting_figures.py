"""Peaks against a device: bars are as long as they are, what can't run says why, curves end."""

import re
from dataclasses import replace
from html import unescape

import pytest

import workbench as wb
from workbench import figures, widgets
from workbench.cluster import DEVICES
from workbench.footprint import KINDS, closed_form_memory
from workbench.widgets.controls import w

SPEC = wb.PRESETS["toy-video"]


@pytest.fixture(scope="module")
def rows():
    found = {n: closed_form_memory(SPEC, n, p=2, optimizer="adamw") for n in ("dsp", "megatron-sp")}
    return found | {"ulysses": "ulysses gives each rank whole heads"}


def test_bars_are_as_long_as_peaks_and_the_line_is_the_budget(rows):
    peaks = {name: row.peak_bytes for name, row in rows.items() if not isinstance(row, str)}
    budget = max(peaks.values()) - 1
    drawn = figures.fit_svg(rows, budget)
    widths = {}
    for points, tip in re.findall(r'<polygon points="([^"]*)"[^>]*><title>([^<]*)', drawn):
        xs = [float(pair.split(",")[0]) for pair in points.split()]
        widths[tip] = max(xs) - min(xs)
    scale = 400 / max(peaks.values())
    for name, peak in peaks.items():
        bars = {tip: width for tip, width in widths.items() if tip.startswith(f"{name}, ")}
        assert sum(bars.values()) == pytest.approx(peak * scale, abs=1)
        assert len(bars) == sum(size > 0 for size in rows[name].kinds.values())
    assert f"the device: {budget:,} B" in widths
    assert "ulysses gives each rank whole heads" in drawn
    assert set(figures.FOOTPRINT_COLOURS) == set(KINDS)
    assert all(figures.FOOTPRINT_COLOURS[k] == c for k, c in figures.KIND_COLOURS.items())


def test_captions_count_what_fits(rows):
    peaks = sorted(row.peak_bytes for row in rows.values() if not isinstance(row, str))
    for budget, count in ((peaks[0] - 1, 0), (peaks[0], 1), (peaks[1], 2)):
        text = figures.caption(figures.fit_chart(rows, budget))
        assert text.startswith(f"{count} of 3 fit into")
        assert "1 can't run." in text
    assert figures.fit_caption({"ring": "no"}, 1) == "None of them can run this."


def test_curves_say_how_far_they_fit():
    at = {
        n: closed_form_memory(SPEC, "dsp", p=2, dtype=d)
        for n, d in ((1, "bfloat16"), (2, "float32"))
    }
    figure = figures.peak_curves({"dsp": at, "dsp, twice": at}, at[1].peak_bytes, "sizes")
    assert list(figure.data[0].y) == [row.peak_bytes / 1e9 for row in at.values()]
    assert [trace.line.dash for trace in figure.data] == ["solid", "dash", "dot"]
    assert {trace.line.color for trace in figure.data[:2]} == {figures.COLOURS["dsp"]}
    assert list(figure.data[2].y) == [at[1].peak_bytes / 1e9] * 2
    assert figures.caption(figure).endswith("dsp 1; dsp, twice 1.")
    assert "dsp none" in figures.caption(figures.peak_curves({"dsp": at}, 1, "sizes"))


def test_the_explorer_follows_each_control():
    explorer = widgets.fit_explorer(SPEC, "a10", p=4)
    changes = {"time": 12, "space": 20, "layers": 1, "batch": 3, "p": 2, "checkpoint": "block",
               "optimizer": "sgd", "dtype": "float32", "device": "h100"}  # fmt: skip
    for name, value in changes.items():
        before = explorer.picture.value
        explorer.controls[name].value = value
        assert explorer.picture.value != before, name
    model = replace(SPEC, dims={"time": 12, "space": 20}, num_layers=1, batch=3)
    how = {"p": 2, "checkpoint": "block", "optimizer": "sgd", "dtype": "float32"}
    assert explorer.rows == {n: closed_form_memory(model, n, **how) for n in wb.STRATEGIES}
    assert explorer.picture.value == figures.fit_svg(explorer.rows, DEVICES["h100"].memory_bytes)
    assert "6 of 6 fit" in explorer.caption.value
    assert all(isinstance(c, w.BoundedIntText | w.Dropdown) and c.description
               for c in explorer.controls.values())  # fmt: skip


def test_the_explorer_names_refusals_and_a_way_out():
    explorer = widgets.fit_explorer(wb.PRESETS["stdit-xl-2"], "a10", p=3)
    assert "num_heads=16, p=3" in explorer.rows["ulysses"]
    said = unescape(explorer.caption.value)
    assert "0 of 6 fit" in said
    assert "3 can't run" in said
    assert "The smallest change that makes ring fit: checkpoint='block'." in said
