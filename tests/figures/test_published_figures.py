"""Pictures of published numbers and of predicted seconds show the numbers that they were given."""

import pytest

import workbench as wb
from workbench import figures
from workbench.published import BARS, fig3_throughput, left_out, table

OURS = [fig3_throughput(**bar.asked) for bar in BARS]


def test_each_bar_stands_beside_ours_with_its_ratio():
    figure = figures.published_bars(BARS, OURS)
    assert [a.text for a in figure.layout.annotations] == ["T = 64", "T = 128"]
    for i, length in enumerate((64, 128)):
        theirs, ours = figure.data[2 * i : 2 * i + 2]
        here = [(b, o) for b, o in zip(BARS, OURS, strict=True) if b.temporal_length == length]
        assert list(theirs.y) == [bar.samples_per_s for bar, _ in here]
        assert list(ours.y) == [our for _, our in here]
        assert list(ours.text) == [f"{our / bar.samples_per_s:.2f}" for bar, our in here]
        assert list(ours.marker.color) == [figures.COLOURS[bar.method] for bar, _ in here]
    assert "grade A-dig" in figure.layout.title.text
    mean = sum(abs(o / b.samples_per_s - 1) for b, o in zip(BARS, OURS, strict=True)) / len(BARS)
    assert f"we are {mean:.1%} off" in figures.caption(figure)


def test_ratios_say_what_was_used_in_the_fit():
    rows, others = table(), left_out()
    used, never, from_others = figures.residuals(rows, others).data
    assert list(used.x) == [row.ratio for row in rows if row.fitted]
    times = [row for row in rows if not row.fitted]  # less is faster
    assert list(never.x) == pytest.approx([row.published / row.ours for row in times])
    assert list(from_others.x) == [1 + error for error in others]
    assert list(from_others.y) == list(used.y)
    assert all(name.endswith("(A-dig)") for name in used.y)
    assert all(name.endswith("(A)") for name in never.y)
    text = figures.caption(figures.residuals(rows, others))
    worst = max(abs(x - 1) for x in never.x)
    assert f"3 numbers never used: off by {sum(abs(x - 1) for x in never.x) / 3:.1%}" in text
    assert f"{worst:.1%} at worst; each predicted from the others" in text
    assert len(figures.residuals(rows).data) == 2


def test_the_parts_of_a_step_add_up():
    spec, box = wb.PRESETS["stdit-xl-2"], wb.CLUSTERS["dgx-h100"]
    costs = {name: wb.predict(spec, name, box, p=8) for name in ("dsp", "ulysses", "ring")}
    figure = figures.step_parts(costs)
    for i, (name, cost) in enumerate(costs.items()):
        assert {trace.y[i] for trace in figure.data} == {name}
        assert sum(trace.x[i] for trace in figure.data) == pytest.approx(cost.seconds)
        share = f"{cost.exposed_communication_s / cost.seconds:.1%}"
        assert share in figure.layout.annotations[i].text
    assert "Predicted: dsp takes" in figures.caption(figure)
    share = costs["ring"].exposed_communication_s / costs["ring"].seconds
    assert f"weighs most in ring: {share:.0%}" in figures.caption(figure)


def test_curves_are_the_numbers_and_say_where_the_lowest_changes():
    series = {"dsp": {1: 1.0, 2: 2.0, 4: 4.0}, "ring": {1: 3.0, 2: 3.0, 4: 3.0}, "single": {1: 9.0}}
    figure = figures.time_curves(series, "tokens")
    assert [list(line.x) for line in figure.data] == [[1, 2, 4], [1, 2, 4], [1]]
    assert list(figure.data[1].y) == [3.0, 3.0, 3.0]
    assert figure.data[0].line.color == figures.COLOURS["dsp"]
    assert [shape.x0 for shape in figure.layout.shapes] == [pytest.approx(3)]  # where 3 = n
    text = figures.caption(figure)
    assert "Tokens: at 1 dsp is lowest, single 9 times that." in text
    assert "Between 2 and 4 ring falls below dsp." in text
    relative = figures.time_curves(series, "tokens", "dsp")
    assert list(relative.data[1].y) == [3.0, 1.5, 0.75]
    same = figures.time_curves({"dsp": {1: 1.0}}, "p")
    assert "The lowest is the same everywhere." in figures.caption(same)
