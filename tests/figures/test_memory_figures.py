"""Bars of memory: lengths and numbers are those of the faked steps."""

import re
from itertools import pairwise

import pytest

import workbench as wb
from workbench import figures
from workbench.memory import KINDS, at_peak
from workbench.units import human_bytes

VIDEO = wb.PRESETS["toy-video"]
ROWS = {
    "one device": at_peak(VIDEO, "single", p=1),
    "dsp": at_peak(VIDEO, "dsp", p=4, checkpoint="block"),
}


def bars(page):
    """Left and right of each bar by its name and kind, with the bytes of its tip."""
    drawn = {}
    for points, tip in re.findall(r'points="([^"]*)"[^>]*><title>([^<]*)</title>', page):
        xs = [float(point.split(",")[0]) for point in points.split()]
        name, size = tip.removesuffix(" B").split(": ")
        drawn[name] = (min(xs), max(xs), int(size.replace(",", "")))
    return drawn


def test_bars_are_the_bytes_at_the_peak():
    drawn = bars(figures.memory_svg(ROWS))
    expected = {
        f"{name}, {kind}": size
        for name, row in ROWS.items()
        for kind, size in row.held.items()
        if size
    }
    assert {name: size for name, (_, _, size) in drawn.items()} == expected
    left, right, most = max(drawn.values(), key=lambda bar: bar[2])
    for name, row in ROWS.items():
        mine = [drawn[f"{name}, {kind}"] for kind, size in row.held.items() if size]
        for start, end, size in mine:
            assert end - start == pytest.approx(size * (right - left) / most, abs=0.2)
        for (_, end, _), (start, _, _) in pairwise(mine):
            assert start == pytest.approx(end, abs=0.01)  # each begins where the last one ends


def test_numbers_stand_beside_the_bars():
    page = figures.memory_svg(ROWS)
    for row in ROWS.values():
        step = row.step
        for words in (step.peak_bytes, step.sent_bytes):
            assert f">{human_bytes(words)}<" in page
        assert f">{step.flops:.3g}<" in page
    assert all(f">{kind}<" in page for kind in KINDS)


def test_the_caption_says_who_holds_most_and_of_what():
    figure = figures.memory_chart(ROWS)
    text = figures.caption(figure)
    one, dsp = (row.step for row in ROWS.values())
    share = ROWS["one device"].held["activations"] / one.peak_bytes
    assert (
        f"Most: 'one device' with {human_bytes(one.peak_bytes)} at a rank's peak: weights" in text
    )
    assert f"activations {share:.1%}" in text
    assert f"Least: 'dsp' with {human_bytes(dsp.peak_bytes)} at a rank's peak" in text
    assert f"That is {dsp.peak_bytes / one.peak_bytes:.2g} of the most" in text
    assert f"computes {dsp.flops / one.flops:.3g} times the flops" in text
    assert "optimizer's state is left out" in text
    assert figures.image(figure).startswith(b"\x89PNG")


def test_one_row_is_compared_with_nothing_and_none_is_said():
    text = figures.memory_caption({"dsp": ROWS["dsp"]})
    assert "Least" not in text
    assert "times the flops" not in figures.memory_caption({"a": ROWS["dsp"], "b": ROWS["dsp"]})
    assert figures.memory_caption({}) == "No step was faked."
    assert figures.memory_svg({}).startswith("<svg")


def test_each_kind_has_its_own_colour():
    assert list(figures.KIND_COLOURS) == list(KINDS)
    assert len(set(figures.KIND_COLOURS.values())) == len(KINDS)
