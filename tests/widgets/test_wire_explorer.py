"""The slider of the wires: its forecast follows at once, the button runs, refusals are text."""

import html

import pytest

import workbench as wb
from workbench import widgets
from workbench.box import NoBoxError
from workbench.collectives import crossing_bytes
from workbench.widgets import wires
from workbench.wires import WireRow, as_gloo

VIDEO = wb.PRESETS["toy-video"]
NAMES = ["dsp", "ring"]


@pytest.fixture
def asked(monkeypatch):
    """A machine that can make a box; what it was asked to measure."""
    calls = []

    def measure(spec, strategies, speeds, *, nodes, ranks_per_node, repeats):
        calls.append((strategies, speeds, nodes, ranks_per_node))
        return [WireRow(name, speeds[0], 0.5 + i, 0.25, 1000) for i, name in enumerate(strategies)]

    monkeypatch.setattr(wires, "missing", lambda: None)
    monkeypatch.setattr(wires, "measure", measure)
    return calls


def test_the_forecast_follows_the_slider_and_nothing_runs(asked):
    explorer = widgets.wire_explorer(VIDEO, NAMES, 1.0)
    before = explorer.picture.value
    explorer.speed.value = 0.1
    log = as_gloo(wb.fake_step(VIDEO, "ring", p=4).log)
    slowest = crossing_bytes(log, 2, 2) / (0.1 * 125e6)
    assert explorer.picture.value != before
    assert f"{wires.figures.wires.human_seconds(slowest)} for ring" in explorer.caption.value
    assert "Nothing has run at this speed yet" in explorer.caption.value
    assert "what comes before them is not known" in explorer.caption.value
    assert "the wires alone" in explorer.picture.value  # no forecast: a step without has not run
    assert "forecast" not in explorer.picture.value
    assert asked == []


def test_the_button_runs_what_is_set(asked):
    explorer = widgets.wire_explorer(VIDEO, NAMES, 0.3)
    explorer.shape.value = "4 of 1 rank"
    explorer.button.click()
    assert asked == [(NAMES, [0.3], 4, 1)]
    assert [row.seconds for row in explorer.took["4 of 1 rank", 0.3].values()] == [0.5, 1.5]
    assert "Measured (coloured): dsp 500 ms, ring 1.5 s" in explorer.caption.value
    assert "1.5 s" in explorer.picture.value
    assert not explorer.button.disabled
    explorer.speed.value = 0.5  # of another speed nothing is known but the forecast
    assert "Nothing has run" in explorer.caption.value
    assert "forecast 250 ms" in explorer.picture.value


def test_what_goes_wrong_is_shown_and_the_button_comes_back(asked, monkeypatch):
    def broken(*_, **__):
        raise NoBoxError("tc is gone")

    explorer = widgets.wire_explorer(VIDEO, NAMES)
    monkeypatch.setattr(wires, "measure", broken)
    explorer.button.click()
    assert "Not possible: tc is gone." in explorer.caption.value
    assert not explorer.button.disabled
    assert explorer.took == {}


def test_without_the_right_rows_are_recorded_and_said_to_be(monkeypatch):
    monkeypatch.setattr(wires, "missing", lambda: "this is a test")
    explorer = widgets.wire_explorer(VIDEO)
    explorer.speed.value = 0.1
    said = html.unescape(explorer.caption.value)
    assert "Recorded (coloured): dsp" in said
    assert "This machine can't run it: this is a test." in said
    assert explorer.button.disabled
    assert explorer.shape.disabled


def test_a_speed_that_is_not_on_the_slider_is_refused(asked):
    with pytest.raises(ValueError, match="Gbit/s must be one of"):
        widgets.wire_explorer(VIDEO, NAMES, 0.07)


def test_a_strategy_that_cannot_run_is_refused(asked):
    odd = wb.TransformerSpec(dims={"time": 4, "space": 4}, stages=("space", "time"), d_model=18,
                             num_heads=3, num_layers=1)  # fmt: skip
    with pytest.raises(ValueError, match="heads"):
        widgets.wire_explorer(odd, ["ulysses"])
