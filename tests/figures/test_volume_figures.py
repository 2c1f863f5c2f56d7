"""Volumes, logs, times and memory: a figure's data are the closed forms' and the log's."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from drawn import SPECS, sizes

import workbench as wb
from workbench import figures
from workbench.cluster import DEVICES
from workbench.collectives import bytes_to_peers
from workbench.figures.style import OTHER, colour_of
from workbench.outcome import RealStep
from workbench.units import human_bytes

VIDEO = wb.PRESETS["toy-video"]
BIG = wb.PRESETS["stdit-xl-2"]


def bars(figure):
    """Bytes by (phase's name in the legend, strategy)."""
    return {
        (trace.name, name): value
        for trace in figure.data
        for name, value in zip(trace.y, trace.x, strict=True)
    }


@pytest.mark.parametrize("model", SPECS, ids=sizes)
@pytest.mark.parametrize("p", [1, 3, 4])
def test_bars_are_the_closed_forms(model, p):
    found = bars(figures.volume_bars(model, p, dtype="bfloat16"))
    for name in wb.STRATEGIES:
        for phase in ("forward", "backward", "gradients"):
            label = {"gradients": "weights' gradients"}.get(phase, phase)
            try:
                sent = wb.closed_form_bytes(model, name, p=p, phase=phase, dtype="bfloat16")
            except ValueError:
                sent = None
            assert found[label, name] == sent


def test_a_refusal_is_named_with_its_reason_once():
    figure = figures.volume_bars(VIDEO, 3)
    text = figures.caption(figure)
    assert "Refused: megatron-tp, megatron-sp, ulysses: gives each rank whole" in text
    assert text.count("num_heads=4, p=3") == 1
    named = [note.y for note in figure.layout.annotations if "refuses" in note.text]
    assert named == ["megatron-tp", "megatron-sp", "ulysses"]
    assert "num_heads" in figure.data[0].customdata[1]


def test_the_formula_is_in_the_hover_and_the_colours_are_the_strategies():
    trace = figures.volume_bars(VIDEO, 4, ["dsp", "ring"]).data[0]
    assert trace.customdata[0].startswith(wb.STRATEGIES["dsp"].formula)
    assert list(trace.marker.color) == [figures.COLOURS["dsp"], figures.COLOURS["ring"]]


def test_the_legend_of_bars_is_in_no_strategys_colour():
    legend = [t for t in figures.volume_bars(VIDEO, 4, ["dsp"]).data if t.showlegend is not False]
    assert [t.name for t in legend] == ["forward", "backward", "weights' gradients"]
    assert {colour for t in legend for colour in [t.marker.color]} == {"#555555"}


def test_the_caption_of_bars_has_their_numbers():
    text = figures.caption(figures.volume_bars(VIDEO, 4))
    least = wb.closed_form_bytes(VIDEO, "dsp", p=4)
    most = wb.closed_form_bytes(VIDEO, "megatron-tp", p=4)
    assert f"dsp sends the least, {human_bytes(least)}" in text
    assert f"{human_bytes(most)}, {most / least:.3g} times that" in text
    assert f"M is {human_bytes(VIDEO.activation_bytes())}" in text


def test_the_caption_of_bars_without_traffic_stays_true():
    assert "sends the least, 0 B." in figures.caption(figures.volume_bars(VIDEO, 1))
    assert "sends the least" not in figures.caption(figures.volume_bars(VIDEO, 4, ["single"]))


def test_curves_are_the_closed_forms_with_gaps():
    figure = figures.volume_curves(BIG, "p", [8, 16, 32])
    for curve in figure.data:
        for p, sent in zip(curve.x, curve.y, strict=True):
            if sent is None:
                with pytest.raises(ValueError, match="num_heads"):
                    wb.closed_form_bytes(BIG, curve.name, p=p)
            else:
                assert sent == wb.closed_form_bytes(BIG, curve.name, p=p)
    assert "A gap is a size" in figures.caption(figure)


def test_curves_over_a_dim():
    figure = figures.volume_curves(BIG, "time", [16, 64], ["dsp", "single"], p=8)
    longer = replace(BIG, dims={"time": 64, "space": 1024})
    assert figure.data[0].y[1] == wb.closed_form_bytes(longer, "dsp", p=8)
    assert "single sends nothing" in figures.caption(figure)
    assert figure.layout.xaxis.title.text == "time [positions]"
    with pytest.raises(
        ValueError, match=r"over must be 'p' or one of the dims \['time', 'space'\]"
    ):
        figures.volume_curves(BIG, "height", [1])


def test_a_curve_on_another_is_dashed():
    figure = figures.volume_curves(VIDEO, "p", [2, 4], ["megatron-tp", "megatron-sp", "dsp"])
    assert [curve.line.dash for curve in figure.data] == ["solid", "dash", "solid"]
    assert len({curve.line.width for curve in figure.data}) == 1
    assert "A dashed curve" in figures.caption(figure)
    assert "A gap" not in figures.caption(figure)


@pytest.mark.parametrize("name", ["single", "megatron-sp", "ulysses", "ring", "dsp"])
def test_the_matrix_is_the_log(name):
    step = wb.fake_step(VIDEO, name, p=4)
    sent = figures.rank_matrix(step).data[0].z
    for rank, row in enumerate(sent):
        assert sum(row) == step.sent_bytes
        assert row[rank] == 0
    expected = [bytes_to_peers(r, 0, 4) for r in step.log if r.phase != "gradients"]
    assert [sum(column) for column in zip(*expected, strict=True)] == (
        list(sent[0]) if expected else []
    )
    whole = figures.rank_matrix(step, ("forward", "backward", "gradients")).data[0].z
    assert sum(whole[0]) == step.sent_bytes + step.gradient_bytes


def test_the_timeline_is_the_log_in_order():
    step = wb.fake_step(VIDEO, "ring", p=4)
    figure = figures.log_timeline(step)
    drawn = {x: (bar.name, y) for bar in figure.data for x, y in zip(bar.x, bar.y, strict=True)}
    assert [drawn[i] for i in sorted(drawn)] == [(r.kind, r.sent_bytes) for r in step.log]
    assert any(".py:" in text for bar in figure.data for text in bar.customdata)
    assert figures.caption(figure).startswith(f"{len(step.log)} collectives in order")
    assert human_bytes(step.backward_bytes) in figures.caption(figure)
    linear = figures.log_timeline(replace(step, log=step.log[:2]))
    assert (figure.layout.yaxis.type, linear.layout.yaxis.type) == ("log", None)


def test_an_empty_log_is_said_to_be_empty():
    step = wb.fake_step(VIDEO, "single", p=2)
    assert "sends nothing" in figures.caption(figures.log_timeline(step))
    assert "Each rank sends 0 B" in figures.caption(figures.rank_matrix(step))


def test_memory_is_the_faked_peak_beside_devices():
    long = replace(BIG, dims={"time": 1600, "space": 1024}, num_layers=2)
    figure = figures.memory_bars(long, 3, ["single", "ulysses", "dsp"])
    peaks = dict(zip(figure.data[0].x, figure.data[0].y, strict=True))
    assert peaks == {
        "single": wb.fake_step(long, "single", p=1).peak_bytes,
        "dsp": wb.fake_step(long, "dsp", p=3).peak_bytes,
    }
    text = figures.caption(figure)
    assert "single would not fit" in text or "single, dsp would not fit" in text
    assert "Refused: ulysses: gives each rank whole" in text
    lines = {shape.y0 for shape in figure.layout.shapes}
    assert lines == {device.memory_bytes for device in DEVICES.values()}


def test_small_models_are_not_dwarfed_by_devices():
    figure = figures.memory_bars(VIDEO, 2, ["dsp"])
    assert not figure.layout.shapes
    assert "all would fit" in figures.caption(figure)


def test_the_caption_of_memory_names_all_devices_of_the_line():
    text = figures.caption(figures.memory_bars(VIDEO, 2, ["dsp"]))
    least = min(device.memory_bytes for device in DEVICES.values())
    assert all(d.name in text for d in DEVICES.values() if d.memory_bytes == least)


def test_times_are_the_steps():
    common = {"dtype": "float32", "shard": None, "log": [], "output": torch.zeros(1)}
    steps = [
        RealStep("single", 1, seconds=0.5, **common),
        RealStep("mine", 4, seconds=0.25, **common),
    ]
    figure = figures.times(steps)
    assert list(figure.data[0].y) == [0.5, 0.25]
    assert list(figure.data[0].x) == ["single<br>1 rank", "mine<br>4 ranks"]
    assert list(figure.data[0].marker.color) == [figures.COLOURS["single"], OTHER]
    assert "mine is fastest, 250 ms; single slowest, 500 ms, 2 times" in figures.caption(figure)
    assert figures.caption(figures.times([])) == "No step was run."


@pytest.mark.parametrize(("room", "package"), [("figures", "plotly"), ("widgets", "ipywidgets")])
def test_a_missing_extra_is_named_in_one_line(room, package):
    code = f"import sys; sys.modules[{package!r}] = None; import workbench.{room}"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300
    )
    line = f"workbench.{room} needs {package}: pip install 'workbench[notebooks]'"
    assert found.stderr.splitlines()[-1] == f"ModuleNotFoundError: {line}"


def test_every_strategy_has_its_own_colour():
    assert set(figures.COLOURS) == set(wb.STRATEGIES)
    assert len({colour_of(name) for name in [*wb.STRATEGIES, "mine"]}) == len(wb.STRATEGIES) + 1


def test_every_figure_is_opaque_white():
    step = wb.fake_step(VIDEO, "dsp", p=2)
    for figure in (
        figures.volume_bars(VIDEO, 2), figures.volume_curves(VIDEO, "p", [2]),
        figures.rank_matrix(step), figures.log_timeline(step), figures.times([]),
    ):  # fmt: skip
        assert (figure.layout.paper_bgcolor, figure.layout.plot_bgcolor) == ("#FFFFFF",) * 2
        assert figures.caption(figure)


@pytest.mark.parametrize("p", [0, -1])
def test_a_picture_of_no_ranks_is_refused(p):
    with pytest.raises(ValueError, match="must be an integer of at least 1"):
        figures.volume_bars(VIDEO, p)
