"""The explorer of memory: set a control, see the bars change; refusals are text."""

import html
from dataclasses import replace

import workbench as wb
from workbench import figures, widgets
from workbench.memory import at_peak
from workbench.widgets.controls import w

VIDEO = replace(wb.PRESETS["toy-video"], num_layers=1, batch=2)


def test_it_follows_each_control():
    explorer = widgets.memory(VIDEO, p=4)
    changes = {
        "p": 2, "time": 10, "space": 6, "layers": 2, "batch": 4, "accumulate": 2,
        "switch": "outside", "checkpoint": "selective", "strategy": "ulysses",
    }  # fmt: skip
    for name, value in changes.items():
        before = explorer.picture.value
        explorer.controls[name].value = value
        assert explorer.picture.value != before, name
    model = replace(VIDEO, dims={"time": 10, "space": 6}, num_layers=2, batch=4)
    chosen = {"checkpoint": "selective", "switch": "outside", "accumulate": 2}
    assert explorer.rows == {
        "keeps everything": at_peak(model, "ulysses", p=2),
        "as chosen": at_peak(model, "ulysses", p=2, **chosen),
    }
    assert explorer.picture.value == figures.memory_svg(explorer.rows)
    assert "at a rank's peak" in html.unescape(explorer.caption.value)


def test_it_shows_refusals_as_text():
    explorer = widgets.memory(VIDEO)
    explorer.controls["accumulate"].value = 3
    assert explorer.rows == {}
    assert explorer.picture.value == ""
    assert "Not possible: accumulate=3 must divide the 2 samples" in explorer.caption.value
    explorer.controls["accumulate"].value = 1
    explorer.controls["p"].value = 3
    explorer.controls["strategy"].value = "ulysses"
    assert "num_heads=4, p=3" in explorer.caption.value


def test_every_control_has_a_name():
    for control in widgets.memory(VIDEO).controls.values():
        assert isinstance(control, w.BoundedIntText | w.Dropdown)
        assert control.description
