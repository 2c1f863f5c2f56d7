"""Set a control, see the data of the figure change. No browser: tests/test_browser.py has one."""

import matplotlib.figure
import plotly.graph_objects as go
import pytest
from ipywidgets import HTML, BoundedIntText, Dropdown

import workbench as wb
from workbench import figures, widgets
from workbench.widgets import shown


def test_compare_follows_each_control():
    explorer = widgets.compare()
    changes = {
        "p": 2, "time": 12, "space": 5, "batch": 3, "heads": 8, "dtype": "bfloat16",
        "strategy": "ring", "against": "megatron-sp",
    }  # fmt: skip
    for name, value in changes.items():
        before = explorer.picture.value
        explorer.controls[name].value = value
        assert explorer.picture.value != before, name
    expected = wb.TransformerSpec(
        dims={"time": 12, "space": 5}, stages=("space", "time"), d_model=32, num_heads=8,
        num_layers=2, batch=3,
    )  # fmt: skip
    sent = {v.strategy: v.bytes_by_phase["forward"] for v in explorer.comparison.volumes}
    assert sent == {
        name: wb.closed_form_bytes(expected, name, p=2, phase="forward", dtype="bfloat16")
        for name in wb.STRATEGIES
    }
    assert "ring: one layer forward" in explorer.picture.value
    assert (
        explorer.comparison.caption
        == figures.comparison(expected, 2, ["ring", "megatron-sp"], "bfloat16").caption
    )


def test_compare_shows_why_a_strategy_refuses():
    explorer = widgets.compare(wb.PRESETS["toy-video"])
    assert "model" not in explorer.controls
    explorer.controls["p"].value = 3
    refused = {v.strategy: v.refusal for v in explorer.comparison.volumes if v.refusal}
    assert set(refused) == {"megatron-tp", "megatron-sp", "ulysses"}
    assert "refuses: gives each rank whole attention heads" in explorer.picture.value
    assert "num_heads=4, p=3" in explorer.caption.value
    assert "ulysses: refuses" in explorer.picture.value  # its layouts, too


def test_compare_offers_only_heads_that_divide_the_width():
    explorer = widgets.compare(wb.PRESETS["toy-video"])
    assert list(explorer.controls["heads"].options) == [1, 2, 4, 8, 16, 32]


def test_compare_of_many_ranks_gives_volumes_without_layouts():
    explorer = widgets.compare()
    explorer.controls["p"].value = 16
    assert "dsp: no layouts above 8 ranks" in explorer.picture.value
    assert explorer.comparison.volumes[-1].sent_bytes > 0
    assert "In the layouts" not in explorer.comparison.caption


def test_compare_changes_the_model():
    explorer = widgets.compare()
    explorer.controls["model"].value = "toy-volume"
    assert {"depth", "height", "width"} < set(explorer.controls)
    assert "time" not in explorer.controls
    explorer.controls["depth"].value = 3
    assert "away: depth 3" in explorer.picture.value


def test_compare_says_what_is_not_possible(monkeypatch):
    explorer = widgets.compare()

    def refuse(*arguments):
        raise ValueError("no such model")

    monkeypatch.setattr(figures, "comparison", refuse)
    explorer.controls["time"].value = 4
    assert explorer.comparison is None
    assert "Not possible: no such model." in explorer.caption.value


def test_the_player_steps_through_the_frames():
    player = widgets.layout_player()
    assert [frame.event for frame in player.frames][:2] == ["start", "attend"]
    for step, frame in enumerate(player.frames, start=1):
        player.controls["step"].value = step
        assert f"step {step} of {len(player.frames)}" in player.picture.value
        assert frame.title.replace(">", "&gt;") in player.picture.value
        assert figures.layout_caption(player.frames, "dsp").split(" with ")[0] in (
            player.caption.value
        )
    assert player.controls["step"].max == len(player.frames)


def test_the_player_follows_strategy_ranks_and_model():
    player = widgets.layout_player(strategy="megatron-sp")
    player.controls["step"].value = 13
    player.controls["strategy"].value = "dsp"  # fewer steps
    assert player.controls["step"].value == player.controls["step"].max == len(player.frames)
    player.controls["p"].value = 2
    assert player.frames[0].p == 2
    player.controls["model"].value = "toy-text"
    assert player.frames == []
    assert "Refused: dsp keeps a dim cut" in player.picture.value
    assert player.caption.value == ""
    player.controls["step"].value = 1
    assert "Refused" in player.picture.value
    player.controls["strategy"].value = "ring"
    assert player.frames[-1].event == "hop"


def test_a_given_model_is_the_only_one():
    player = widgets.layout_player(wb.PRESETS["toy-volume"], "ulysses", 2)
    assert set(player.controls) == {"strategy", "p", "step"}
    assert list(player.frames[0].layout.sizes)[1:4] == ["depth", "height", "width"]


@pytest.mark.parametrize("make", [widgets.compare, widgets.layout_player])
def test_every_control_has_a_name(make):
    for control in make().controls.values():
        assert isinstance(control, BoundedIntText | Dropdown)
        assert control.description


def test_bytes_come_from_closed_forms_not_from_a_step(monkeypatch):
    """Speed is measured by benchmarks/widget_latency.py; this holds what it rests on."""
    explorer = widgets.compare()
    explorer.controls["p"].value = 64
    for way in ("fake_step", "run_step"):
        monkeypatch.setattr(f"workbench.step.{way}", lambda *_, **__: pytest.fail("a step was run"))
    monkeypatch.setattr("workbench.rank.RankStep.run", lambda *_: pytest.fail("a step was run"))
    before = explorer.comparison.volumes
    explorer.controls["time"].value = 20
    assert explorer.comparison.volumes != before


@pytest.mark.parametrize("figure", [
    figures.layout_strip(wb.PRESETS["toy-text"], "ring", 2),
    figures.volume_bars(wb.PRESETS["toy-text"], 2),
])  # fmt: skip
def test_show_puts_the_caption_below(figure, monkeypatch):
    displayed = []
    monkeypatch.setattr(shown, "display", lambda what, raw=False: displayed.append(what))
    assert widgets.show(figure) is None
    assert figures.caption(figure)[:20] in displayed[1].value
    if isinstance(figure, go.Figure):
        ((kind, shown_as),) = displayed[0].items()
        assert kind == "application/vnd.plotly.v1+json"
        assert go.Figure(shown_as) == figure
    else:
        assert isinstance(figure, matplotlib.figure.Figure)
        assert isinstance(displayed[0], HTML)
        assert 'alt="ring, 2 ranks' in displayed[0].value


def test_a_word_that_no_list_has_is_refused_with_those_that_it_has():
    with pytest.raises(ValueError, match=r"device must be one of .*h100.*; got 'h1000'"):
        widgets.fit_explorer(device="h1000")
