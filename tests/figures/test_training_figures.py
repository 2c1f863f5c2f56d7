"""Curves that lie on each other, clips that play."""

import pytest
import torch

from workbench.figures import caption
from workbench.figures.style import COLOURS, PAPER
from workbench.figures.training import differences, film, loss_curves


def test_curves_stand_above_their_differences_from_the_first():
    runs = {"single": [2.0, 1.0, 0.5], "dsp": [2.0, 1.0, 0.5], "ring, 4 ranks": [2.0, 1.1, 0.5]}
    figure = loss_curves(runs)
    upper = [trace for trace in figure.data if trace.yaxis == "y"]
    lower = [trace for trace in figure.data if trace.yaxis == "y2"]
    assert [trace.name for trace in upper] == list(runs)
    assert [list(trace.y) for trace in upper] == list(runs.values())
    assert [trace.name for trace in lower] == ["dsp", "ring, 4 ranks"]
    assert list(lower[0].y) == [None, None, None]
    assert list(lower[1].y) == [None, pytest.approx(0.1), None]
    assert [trace.line.color for trace in upper] == [COLOURS[n] for n in ("single", "dsp", "ring")]
    assert upper[0].line.width > 2 * upper[1].line.width  # still seen under the others
    assert len({trace.line.dash for trace in upper}) == 3
    assert "largest relative difference at any step is 1.0e-01 (ring, 4 ranks)" in caption(figure)
    assert figure.layout.paper_bgcolor == PAPER


def test_one_curve_has_no_differences():
    figure = loss_curves({"dsp": [3.0, 1.5]})
    assert caption(figure) == "dsp: from 3 to 1.5 in 2 steps."
    assert len(figure.data) == 1
    assert "One curve" not in figure.layout.title.text


def test_curves_without_any_difference_need_no_panel_of_differences():
    figure = loss_curves({"single": [3.0, 1.5], "dsp": [3.0, 1.5]})
    assert [(trace.name, trace.yaxis) for trace in figure.data] == [("single", "y"), ("dsp", "y")]
    assert caption(figure).endswith("1 more lies on it, without any difference.")


def test_curves_of_different_length_are_not_compared():
    with pytest.raises(ValueError, match="longer"):
        differences([1.0], [1.0, 2.0])


def test_a_film_has_a_frame_for_each_and_shows_all_clips():
    clips = torch.arange(2 * 3 * 4 * 4.0).view(2, 3, 4, 4) / 96
    figure = film({"before": -clips, "after": clips}, "Clips")
    assert [frame.name for frame in figure.frames] == ["1", "2", "3"]
    for i, frame in enumerate(figure.frames):
        z = torch.tensor(frame.data[0].z)
        assert z.shape == (10, 10)
        torch.testing.assert_close(z[5:9, 5:9].float(), clips[1, i], atol=0.006, rtol=0)
        torch.testing.assert_close(z[0:4, 0:4].float(), -clips[0, i], atol=0.006, rtol=0)
    labels = dict(zip(figure.layout.yaxis.ticktext, figure.layout.yaxis.tickvals, strict=True))
    assert labels["before"] < 5 < labels["after"]
    assert "2 x 2 clips of 3 frames with 4 x 4 pixels: before, after" in caption(figure)
    play, pause = figure.layout.updatemenus[0].buttons
    assert (play.label, pause.label) == ("play", "pause")
    assert len(figure.layout.sliders[0].steps) == 3
