"""The forest plot and the explorer of claims show what was recorded."""

import time

import pytest

from workbench.figures import caption
from workbench.figures.claims import Effect, forest, place
from workbench.widgets.claims import Shown, claim_explorer

EFFECTS = {
    "together": Effect(0.06, 0.04, 0.08, 0.02, "nat", "supported"),
    "compression": Effect(-0.6, -0.7, -0.5, 0.3, "powers of ten", "contradicted"),
    "fairness": Effect(0.01, -0.05, 0.07, 0.02, "nat", "not at this scale"),
}


def judge(low, high, smallest):
    if low > smallest:
        return "supported"
    return "contradicted" if high < -smallest else "not at this scale"


def test_a_forest_has_a_bar_a_claim_in_smallest_effects():
    figure = forest(EFFECTS)
    traces = {trace.name: trace for trace in figure.data}
    assert set(traces) == {"supported", "contradicted", "not at this scale"}
    one = traces["supported"]
    assert (one.y, one.x) == (("together",), pytest.approx((place(3),)))
    assert one.x[0] + one.error_x.array[0] == pytest.approx(place(4))
    assert one.x[0] - one.error_x.arrayminus[0] == pytest.approx(place(2))
    assert figure.layout.yaxis.categoryarray[-1] == "together"  # plotly draws from below
    assert len({trace.marker.symbol for trace in figure.data}) == 3  # not by colour alone
    assert "3 claims: 1 supported; 1 contradicted (compression)" in caption(figure)
    low, high = figure.layout.xaxis.range
    assert low < place(-0.7 / 0.3)
    assert high > place(4)


def test_the_explorer_judges_again_with_another_smallest_effect():
    shown = {
        "together": Shown("It helps.", (0.05, 0.06, 0.07), EFFECTS["together"]),
        "fairness": Shown("It is fair.", (-0.02, 0.04), EFFECTS["fairness"]),
    }
    explorer, seen = claim_explorer(shown, judge), set()
    assert "supported" in explorer.caption.value
    for name, value in {"times": 4.0, "claim": "fairness"}.items():
        explorer.controls[name].value = value
        assert "not at this scale" in explorer.caption.value
        seen.add(explorer.picture.value)
    assert len(seen) == 2
    assert "2 seeds" in explorer.caption.value
    assert "share a mark" not in explorer.caption.value
    twice = Shown("It is so.", (0.06, 0.06), EFFECTS["together"])
    said = claim_explorer({"together": twice}, judge)
    assert "Equal seeds share a mark." in said.caption.value
    assert "smallest effect [nat] of 0.02: supported." in said.caption.value
    assert "+0.035 nat" in said.picture.value  # 0.4 of the axis: 0.4 * 1.1 * 0.08
    started = time.perf_counter()
    explorer.controls["times"].value = 0.25
    print(f"a change took {1000 * (time.perf_counter() - started):.1f} ms")
