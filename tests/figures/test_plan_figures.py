"""Pictures of plans, and their explorer: points, bars and reasons are the planner's."""

import math
import re
from dataclasses import replace

import pytest

import workbench as wb
from workbench import figures, widgets
from workbench.planner import pareto, plan
from workbench.widgets.controls import w

SPEC = replace(wb.PRESETS["stdit-xl-2"], num_layers=2)


@pytest.fixture(scope="module")
def plans():
    return plan(SPEC, wb.CLUSTERS["dgx-h100"], p=3)


def test_points_are_plans_and_the_line_is_what_no_other_beats(plans):
    *points, line = figures.pareto_chart(plans, 80 * 10**9).data
    runs = [q for q in plans if q.memory_bytes is not None]
    drawn = {(x, y) for trace in points for x, y in zip(trace.x, trace.y, strict=True)}
    assert drawn == {(q.seconds, q.memory_bytes / 1e9) for q in runs}
    for trace in points:
        assert trace.marker.color == figures.COLOURS.get(trace.name, "#56B4E9")
    front = pareto(runs)
    assert list(line.x) == [q.seconds for q in front]
    assert list(line.y) == [q.memory_bytes / 1e9 for q in front]
    figure = figures.pareto_chart(plans, 80 * 10**9)
    assert figure.layout.annotations[0].y == pytest.approx(math.log10(80))
    text = figures.caption(figure)
    assert text.startswith(f"{len(front)} of {len(runs)} plans are beaten by no other.")


def test_bars_are_as_long_as_steps_take_and_refusals_say_why(plans):
    drawn = figures.plan_svg(plans)
    lengths = []
    filled = r'<polygon points="([^"]*)"(?![^>]*#FFFFFF)'
    for points in re.findall(filled, drawn):
        xs = [float(pair.split(",")[0]) for pair in points.split()]
        lengths.append(max(xs) - min(xs))
    fits = [q for q in plans if q.fits]
    longest = max(q.seconds for q in fits)
    for length, q in zip(lengths, fits, strict=True):
        assert length / max(lengths) == pytest.approx(q.seconds / longest, abs=0.002)
    rows = drawn.count(">gives each rank whole attention heads")
    whole = drawn.count(" gives each rank whole attention heads")  # what a pointer shows
    assert rows == whole == len(plans) - len(fits)
    text = figures.plan_caption(plans)
    lost = [q for q in plans if not q.fits]
    large = sum(q.memory_bytes is not None for q in lost)
    assert (f"{large} of {len(plans)} don't fit" in text) == (large > 0)
    assert f"{len(lost) - large} can't run." in text
    assert fits[0].reason in text
    assert figures.plan_caption(plans[len(fits) :]).startswith("None of")


def test_the_explorer_follows_each_control():
    explorer = widgets.plan_explorer(SPEC)
    changes = {"time": 64, "space": 256, "batch": 2, "p": 4, "checkpoint": "block",
               "fsdp": True, "cluster": "8x-a10", "mode": "inference"}  # fmt: skip
    for name, value in changes.items():
        before = explorer.picture.value
        explorer.controls[name].value = value
        assert explorer.picture.value != before, name
    spec = replace(SPEC, dims={"time": 64, "space": 256}, batch=2)
    same = plan(spec, wb.CLUSTERS["8x-a10"], p=4, mode="inference", fsdp=(True,), meshes=False)
    assert explorer.plans == same
    assert explorer.picture.value == figures.plan_svg(same)
    assert all(q.mesh is None for q in same)
    explorer.controls["p"].value = 16
    assert "Not possible: p=16 ranks do not fit" in explorer.caption.value
    assert (explorer.picture.value, explorer.plans) == ("", [])
    assert all(isinstance(c, w.BoundedIntText | w.Dropdown) and c.description
               for c in explorer.controls.values())  # fmt: skip
