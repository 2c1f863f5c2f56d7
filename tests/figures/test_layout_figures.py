"""Pictures of layouts: drawn three ways from the same frames, for one, two and three dims."""

import re
from xml.etree import ElementTree

import pytest
from drawn import SPECS, sizes, spec
from matplotlib.colors import to_rgb

import workbench as wb
from workbench import figures
from workbench.figures import marks
from workbench.figures.layouts import step_picture, strip_picture
from workbench.figures.panels import Panel
from workbench.figures.style import OTHER
from workbench.strategies import strategies_that_run
from workbench.trace import walk


@pytest.mark.parametrize("p", [1, 3])
@pytest.mark.parametrize("model", SPECS, ids=sizes)
def test_every_layout_is_drawn_within_its_page(model, p):
    for name in ["single", *strategies_that_run(model, p)]:
        frames = walk(model, name, p)
        for picture in (
            step_picture(frames, len(frames) - 1, headline=True),
            strip_picture(frames),
        ):
            points = [point for mark in picture.marks if isinstance(mark, marks.Area)
                      for point in mark.points]  # fmt: skip
            assert all(0 <= x <= picture.width and 0 <= y <= picture.height for x, y in points)
            assert ElementTree.fromstring(marks.svg(picture)).get("viewBox")
            assert marks.traces(picture)


def tips(figure, step):
    """What the pointer tells at one step of the slider."""
    visible = figure.layout.sliders[0].steps[step].args[0]["visible"]
    shown = [trace for trace, on in zip(figure.data, visible, strict=True) if on]
    return [tip for trace in shown if trace.text and trace.mode == "markers" for tip in trace.text]


def test_the_slider_goes_through_the_frames():
    model = wb.PRESETS["toy-video"]
    frames, figure = walk(model, "dsp", 4), figures.layout_steps(model, "dsp", 4)
    steps = figure.layout.sliders[0].steps
    assert len(steps) == len(frames)
    for step, frame in zip(steps, frames, strict=True):
        assert step.args[1]["title.text"].startswith(frame.title)
    assert [trace.visible for trace in figure.data] == list(steps[0].args[0]["visible"])
    assert figure.layout.paper_bgcolor == "#FFFFFF"


def test_a_switch_shows_what_came_from_whom_and_what_went():
    found = tips(figures.layout_steps(wb.PRESETS["toy-video"], "dsp", 4), 2)
    assert "rank 1 holds time 0-1 x space 4-7 (from rank 0)" in found
    assert "rank 1 holds time 2-3 x space 4-7 (its own)" in found
    assert "rank 1 has sent away time 2-3 x space 0-3" in found


def test_a_reduce_scatter_says_sum():
    found = tips(figures.layout_steps(wb.PRESETS["toy-video"], "megatron-sp", 2), 3)
    assert "rank 0 holds time 0-3 x space 0-15 (summed over all ranks)" in found


def test_heads_are_in_the_bar():
    figure = figures.layout_steps(wb.PRESETS["toy-video"], "ulysses", 4)
    assert "rank 2 holds heads 2-2 of 4" in tips(figure, 3)  # during attention
    back = tips(figure, 4)  # heads of all ranks have come home
    assert {f"rank 0 holds heads {h}-{h} of 4" for h in range(4)} <= set(back)


def test_padding_is_marked_and_holds_no_data():
    model = spec("time=5 space=3", ("space", "time"))
    found = tips(figures.layout_steps(model, "ring", 4, "time"), 0)
    assert "rank 2: padding" in found
    assert "rank 2 holds time 4-4 x space 0-2 (its own)" in found
    assert not any(tip.startswith("rank 3 holds time") for tip in found)  # padding only


def test_attention_is_an_arrow_across_the_attended_dim():
    model, frames = wb.PRESETS["toy-video"], walk(wb.PRESETS["toy-video"], "dsp", 4)
    panel = Panel.of(frames)
    for frame in frames:
        arrows = [m for m in step_picture(frames, frames.index(frame)).marks
                  if isinstance(m, marks.Arrow)]  # fmt: skip
        assert len(arrows) == (4 if frame.event == "attend" else 0)
        for arrow in arrows:
            (x0, y0), (x1, y1) = arrow.start, arrow.end
            along_space = frame.attended == ("space",)
            expected = (panel.across, 0) if along_space else (0, panel.down)
            assert (x1 - x0, y1 - y0) == pytest.approx(expected)
    assert model.stages == (("space",), ("time",))


@pytest.mark.parametrize("shard", ["time", "space"])
@pytest.mark.parametrize("stages", [("space", "time"), (("time", "space"),)])
def test_no_label_of_a_ring_lies_on_an_arrow(stages, shard):
    model = spec("time=8 space=16", stages, heads=4)
    frames = walk(model, "ring", 4, shard)
    picture = strip_picture(frames)
    labels = [m for m in picture.marks if isinstance(m, marks.Text) and m.words in RING]
    assert {m.words for m in labels} >= {"Q", "K,V"}
    arrows = [m for m in picture.marks if isinstance(m, marks.Arrow)]
    for label in labels:
        wide, high = 0.36 * label.size * len(label.words), 0.4 * label.size  # to each side
        for (x0, y0), (x1, y1) in ((arrow.start, arrow.end) for arrow in arrows):
            beside = max(x0, x1) < label.x - wide or min(x0, x1) > label.x + wide
            assert beside or max(y0, y1) < label.y - high or min(y0, y1) > label.y + high


#: What stands on the parts of a ring.
RING = {"Q", "K,V", "Q,K,V"}


def test_the_strip_is_printed_on_white_with_its_caption():
    figure = figures.layout_strip(wb.PRESETS["toy-volume"], "dsp", 3)
    assert figure.get_facecolor() == (1, 1, 1, 1)
    frames = walk(wb.PRESETS["toy-volume"], "dsp", 3)
    assert f"{len(frames)} steps: 1 all_to_all" in figures.caption(figure)


def test_an_svg_is_named_by_its_caption():
    frames = walk(wb.PRESETS["toy-video"], "single", 2)
    root = ElementTree.fromstring(figures.layout_svg(frames, "single", 0))
    assert (root.get("role"), root.get("aria-label")) == (
        "img",
        figures.layout_svg(frames, "single").split('aria-label="')[1].split('"')[0],
    )
    assert "nothing is sent" in root.get("aria-label")


@pytest.mark.parametrize(
    ("dims", "stages", "name", "p", "marks_there", "not_there"),
    [
        ("time=4", ("time",), "single", 1, "single, 1 rank,", "rank it came|stripes|Σ|Q:"),
        ("time=4", ("time",), "ring", 2, "Q: its queries; K,V", "stripes|Σ|number"),
        ("time=5", ("time",), "ring", 2, "grey stripes: padding", "pale stripes|Σ"),
        ("a=4 b=4", ("a", "b"), "dsp", 2, "with the number of.*pale stripes", "Σ|grey|r: the"),
        ("a=4 b=4", ("a", "b"), "megatron-sp", 2, "number.*Σ.*MLP's hidden", "grey|r: the"),
        ("a=4 b=4", ("a", "b"), "megatron-tp", 2, "colour of the rank.*Σ", "pale|number"),
    ],
)
def test_captions_speak_of_the_marks_in_the_picture(dims, stages, name, p, marks_there, not_there):
    text = figures.layout_caption(walk(spec(dims, stages), name, p), name)
    assert re.search(marks_there, text)
    assert not re.search(not_there, text)


def test_too_many_ranks_or_dims_are_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"at most 8 ranks, got p=9.*volume_bars"):
        figures.layout_steps(wb.PRESETS["toy-video"], "dsp", 9)
    four = spec("a=2 b=2 c=2 d=2", ("a", "b", "c", "d"))
    with pytest.raises(ValueError, match=r"1, 2 or 3 dims; this model has 4"):
        figures.layout_strip(four, "dsp", 2)


def test_reader_strategies_are_drawn_too():
    class Mine(wb.STRATEGIES["dsp"]):
        name = "mine"

    assert figures.caption(figures.layout_strip(wb.PRESETS["toy-video"], Mine, 2)).startswith(
        "mine"
    )


def test_ranks_keep_their_colours():
    assert figures.rank_colours(8)[:4] == figures.rank_colours(4)
    assert all(re.fullmatch(r"#[0-9a-fA-F]{6}", colour) for colour in figures.rank_colours(30))


def test_ranks_look_like_no_strategy():
    def near(one, other):
        pairs = zip(to_rgb(one), to_rgb(other), strict=True)
        return sum((a - b) ** 2 for a, b in pairs) ** 0.5 < 0.2

    strategies = [OTHER, *(c for name, c in figures.COLOURS.items() if name != "single")]
    assert not any(near(a, b) for a in figures.rank_colours(8) for b in strategies)
