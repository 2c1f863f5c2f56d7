"""The explorer of schedules: set a control, see the timetables change."""

from dataclasses import replace

import workbench as wb
from workbench import figures, widgets
from workbench.widgets.controls import w


def test_it_follows_each_control():
    explorer = widgets.schedules()
    changes = {
        "p": 3, "depth": 5, "height": 7, "width": 2, "layers": 6, "schedule": "bytes",
        "against": "attention", "first": "depth",
    }  # fmt: skip
    for name, value in changes.items():
        before = explorer.picture.value
        explorer.controls[name].value = value
        assert explorer.picture.value != before, name
    dims = {"depth": 5, "height": 7, "width": 2}
    model = replace(wb.PRESETS["toy-volume"], dims=dims, num_layers=6)
    expected = [figures.timetable(model, name, 3, "depth") for name in ("bytes", "attention")]
    assert explorer.tables == expected
    assert "bytes: " in explorer.caption.value
    explorer.controls["against"].value = "bytes"  # twice the same is shown once
    assert len(explorer.tables) == 1


def test_it_changes_the_model_and_shows_refusals():
    explorer = widgets.schedules()
    explorer.controls["p"].value = 8
    explorer.controls["model"].value = "toy-text"
    assert explorer.tables == []
    assert "Not possible: dsp keeps a dim cut" in explorer.caption.value
    assert explorer.picture.value == ""
    explorer.controls["model"].value = "toy-video"
    assert explorer.controls["p"].value == 8
    assert explorer.tables[0].p == 8
    assert {"time", "space"} < set(explorer.controls)


def test_a_given_model_is_the_only_one_and_every_control_has_a_name():
    explorer = widgets.schedules(wb.PRESETS["toy-video"], p=2)
    assert "model" not in explorer.controls
    for control in widgets.schedules().controls.values():
        assert isinstance(control, w.BoundedIntText | w.Dropdown)
        assert control.description
