"""Charts of schedules: drawn from timetables that say what the log says."""

from dataclasses import replace
from xml.etree import ElementTree

import pytest
from drawn import SPECS, sizes
from matplotlib.figure import Figure

import workbench as wb
from workbench import figures
from workbench.figures.marks import Area, Arrow, Text
from workbench.figures.schedules import _chart
from workbench.strategies import strategies_that_run
from workbench.trace import walk

MODELS = [replace(m, num_layers=3) for m in SPECS if "dsp" in strategies_that_run(m, 3)]
VOLUME = replace(wb.PRESETS["toy-volume"], num_layers=4)


@pytest.mark.parametrize("name", figures.VARIANTS)
@pytest.mark.parametrize("model", MODELS, ids=sizes)
def test_a_timetable_is_what_a_step_does(model, name):
    chosen = figures.VARIANTS[name]
    for p in (2, 3):
        table = figures.timetable(model, name, p)
        log = [r for r in wb.fake_step(model, "dsp", p=p, **chosen).log if r.phase == "forward"]
        moves = [(turn.layer, *move) for turn in table.turns for move in turn.moves]
        assert moves == [(record.layer, *record.dim.split("->")) for record in log]
        assert table.switches == len(log)
        assert table.sent_bytes == sum(record.sent_bytes for record in log)
        assert table.possible
        frames = walk(model, "dsp", p, layers=3, **chosen)
        attended = [(f.layer, f.attended, f.layout.split) for f in frames if f.event == "attend"]
        assert attended == [(turn.layer, turn.attended, turn.cut) for turn in table.turns]


@pytest.mark.parametrize("model", MODELS, ids=sizes)
def test_a_chart_shows_cuts_stages_and_switches(model):
    tables = [figures.timetable(model, name, 3) for name in figures.VARIANTS]
    page = _chart(model, tables)
    areas = [mark for mark in page.marks if isinstance(mark, Area)]
    assert all(0 <= x <= page.width and 0 <= y <= page.height for a in areas for x, y in a.points)
    turns = [turn for table in tables for turn in table.turns]
    outlined = [area for area in areas if area.width > 2]
    assert len(outlined) == sum(len(turn.attended) for turn in turns)
    cut = [area for area in areas if area.tip.endswith("is cut")]
    both = sum(turn.cut != turn.stream for turn in turns)
    assert len(cut) == len(tables) + len(turns) + both
    assert sum(area.hatched for area in areas) == both
    arrows = [mark for mark in page.marks if isinstance(mark, Arrow)]
    assert sum(arrow.heads for arrow in arrows) == sum(table.switches for table in tables)
    assert ElementTree.fromstring(figures.schedule_svg(model, tables)).get("viewBox")


def test_the_caption_names_numbers_and_marks():
    tables = [figures.timetable(VOLUME, name, 4) for name in ("lazy", "attention")]
    figure = figures.schedule_chart(VOLUME, tables)
    assert isinstance(figure, Figure)
    text = figures.caption(figure)
    assert "4 layers of 3 stages" in text
    assert "lazy: 5 switches (1.25 a layer)" in text
    assert "around attention: 8 switches (2.00 a layer)" in text
    for mark in ("Filled", "outlined", "striped", "arrows", "→"):
        assert mark in text
    even = replace(VOLUME, dims=dict.fromkeys(VOLUME.dims, 4), num_layers=1)
    text = figures.schedule_caption(even, [figures.timetable(even, "lazy", 4)])
    assert "striped" not in text
    assert "→" not in text
    assert "a layer" not in text


def test_a_schedule_of_ones_own_may_be_impossible():
    cuts = ["width", "width", "depth"] * 4
    table = figures.own_timetable(VOLUME, cuts, 4, "width")
    assert table.possible
    assert table.switches == 7
    assert table.name == "yours"
    wrong = figures.own_timetable(VOLUME, ["width"] * 12, 4, "width")
    assert not wrong.possible
    page = _chart(VOLUME, [wrong])
    crosses = [mark for mark in page.marks if isinstance(mark, Text) and mark.words == "✗"]
    assert len(crosses) == VOLUME.num_layers
    text = figures.schedule_caption(VOLUME, [wrong])
    assert "yours: not possible" in text
    assert "arrows" not in text


def test_what_has_no_schedule_is_refused():
    with pytest.raises(ValueError, match="one rank cuts nothing"):
        figures.timetable(VOLUME, "lazy", 1)
    with pytest.raises(ValueError, match="none is left"):
        figures.timetable(wb.PRESETS["toy-text"], "lazy", 2)
