"""Pictures of nodes and wires: widths and bars are the numbers of the logs and rows."""

import pytest

import workbench as wb
from workbench import figures
from workbench.collectives import crossing_bytes
from workbench.units import human_bytes
from workbench.wires import WireRow

NAMES = ("dsp", "ring", "ulysses")
ROWS = [WireRow(n, s, 1.0 / s + i, 0.5, 10**6) for s in (1.0, 0.1) for i, n in enumerate(NAMES)]


def test_a_wire_is_as_wide_as_what_passes_a_card():
    logs = {name: wb.fake_step(wb.PRESETS["toy-video"], name, p=4).log for name in NAMES}
    carried = {name: crossing_bytes(log, 2, 2) for name, log in logs.items()}
    figure = figures.nodes_and_wires(logs)
    drawn = {trace.hovertemplate.split(":")[0]: trace.line for trace in figure.data}
    assert list(drawn) == list(NAMES)
    for name, line in drawn.items():
        assert line.color == figures.COLOURS[name]
        share = carried[name] / max(carried.values())
        assert line.width / max(other.width for other in drawn.values()) == pytest.approx(share)
    ranks = [a.text for a in figure.layout.annotations if a.text.isdigit()]
    assert ranks == ["0", "1", "2", "3"] * len(NAMES)
    least = min(carried, key=carried.get)
    assert f"least under {least} ({human_bytes(carried[least])})" in figures.caption(figure)


def test_bars_are_the_rows():
    figure = figures.wire_times(ROWS)
    assert [a.text for a in figure.layout.annotations] == ["1 Gbit/s", "0.1 Gbit/s"]
    for i, speed in enumerate((1.0, 0.1)):
        alone, wire, measured = figure.data[3 * i : 3 * i + 3]
        here = [row for row in ROWS if row.gbit_per_s == speed]
        assert list(measured.y) == [row.seconds for row in here]
        assert list(alone.y) == list(wire.base) == [row.local_s for row in here]
        assert list(wire.y) == [row.wire_s for row in here]
        assert list(measured.marker.color) == [figures.COLOURS[row.strategy] for row in here]
    assert "at 0.1 Gbit/s dsp took 10 s and ulysses 12 s" in figures.caption(figure)
    assert "recorded" in figures.wire_times(ROWS, "recorded").layout.title.text
