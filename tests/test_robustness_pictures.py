"""Figures and explorers of notebooks 33 and 36 show their data and follow their controls."""

import numpy as np
import pytest

from workbench.federated import averaging, breakdown, defence
from workbench.figures import averaging as lines
from workbench.figures import caption
from workbench.figures import robustness as bars
from workbench.widgets.averaging import RANKS, SHAPE, SPREADS, gap_explorer
from workbench.widgets.controls import w
from workbench.widgets.robustness import attack_explorer


def test_lines_are_the_errors_and_points_have_no_name_of_their_own():
    values = {"a": {0: 0.0, 2: 0.5}, "b": {0: 0.0, 2: 0.25}}
    figure = lines.gap_lines(values, "spread", {"a": {1: 0.3}})
    assert [(t.name, t.x, t.y, t.mode) for t in figure.data] == [
        ("a", (0, 2), (0.0, 0.5), "lines"),
        ("b", (0, 2), (0.0, 0.25), "lines"),
        ("a", (1,), (0.3,), "markers"),
    ]
    assert [t.showlegend for t in figure.data] == [True, True, False]
    assert figure.data[0].marker.color == figure.data[2].marker.color
    said = "spread from 0 to 2: a from 0.0% to 50.0%; b from 0.0% to 25.0% of the exact mean."
    assert said in caption(figure)
    assert "points: single draws" in caption(figure)
    assert "points" not in caption(lines.gap_lines(values, "spread"))


def test_the_spectrum_says_what_an_adapter_cannot_hold():
    figure = lines.spectrum([4.0, 3.0, 0.0], rank=1)
    assert [(bar.x, bar.y) for bar in figure.data] == [((1,), (4.0,)), ((2, 3), (3.0, 0.0))]
    assert "has rank 2. An adapter of rank 1 holds" in caption(figure)
    assert "cut off is 60% of" in caption(figure)  # 3 of 5


def test_the_gap_explorer_follows_each_control_by_the_closed_form():
    explorer, seen = gap_explorer(rank=8, spread=1.0, clients=8), set()
    for name, value in {"rank": 4, "spread": 2.0, "clients": 20}.items():
        explorer.controls[name].value = value
        seen.add((explorer.picture.value, explorer.caption.value))
    assert len(seen) == 3
    gap, per = averaging.expected_gap(4, 2.0, 20, SHAPE), np.sqrt(np.prod(SHAPE))
    exact, apart, missed = explorer.sizes
    assert (exact, missed) == pytest.approx((gap.exact / per, gap.missed / per))
    assert apart**2 + missed**2 == pytest.approx(exact**2)
    assert f"{missed:.3g}, {gap.relative:.0%} of it" in explorer.caption.value
    explorer.controls["clients"].value = 1
    assert ">1 client, rank 4" in explorer.caption.value
    assert explorer.controls["rank"].options == RANKS
    assert explorer.controls["spread"].options == SPREADS


def test_what_is_missed_is_at_a_right_angle_to_the_product_of_means():
    draw, sizes = np.random.default_rng(0), []
    for _ in range(60):
        updates = averaging.drawn_factors(draw, 2, 1.5, 4, (20, 20))
        a, b = (np.mean([u.arrays[n] for u in updates], axis=0) for n in averaging.ONE[:2])
        sizes.append(np.sum((b @ a) ** 2))
    gap = averaging.expected_gap(2, 1.5, 4, (20, 20))
    assert np.mean(sizes) == pytest.approx(gap.exact**2 - gap.missed**2, rel=0.1)


def test_the_breakdown_shows_where_each_rule_breaks():
    errors = {"mean": [0.3, 9.0], "median": [0.4, 0.5]}
    figure = bars.breakdown(errors, {"mean": 0, "median": 1}, clients=5, attack="far")
    assert figure.layout.title.text == "Breakdown: far attackers among 5 clients"
    assert [line.y for line in figure.data] == [(0.3, 9.0), (0.4, 0.5)]
    assert [line.marker.symbol for line in figure.data] == [("star", "circle"), ("circle", "star")]
    assert "mean (meant for 0) with 1; median (meant for 1) never here" in caption(figure)
    assert caption(figure).endswith("One draw.")
    figure = bars.breakdown(errors, {"mean": 0, "median": 1}, clients=5, draws=3)
    assert caption(figure).endswith("Errors are means of 3 draws.")


@pytest.mark.parametrize("rule", breakdown.RULES)
def test_each_rule_holds_for_as_many_as_it_is_meant_for(rule):
    """And for one more than half, all are lost."""
    errors = breakdown.errors(rule, clients=11)
    meant = breakdown.RULES[rule].withstands(11)
    assert max(errors[: meant + 1]) < 2 < 10 < errors[-1]


def test_what_the_rules_join_is_what_the_defences_do():
    updates = breakdown.attacked_updates(clients=11, attackers=2, attack="close")
    assert (updates[:2] == -0.5).all()
    for rule, joined in {
        "trimmed mean": defence.trimmed_mean(updates, 0.2),
        "Krum": defence.krum(updates, 4),
        "Multi-Krum": defence.multi_krum(updates, 4, 3),
        "Bulyan": defence.bulyan(updates, 2),
    }.items():
        expected = np.sqrt(np.mean((joined - 1) ** 2))
        assert breakdown.error(rule, updates) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: breakdown.attacked_updates(3, 1, "rude"), "attack='rude'; it is one of"),
        (lambda: breakdown.attacked_updates(3, 4), "attackers=4 of 3 clients"),
        (lambda: breakdown.error("mode", np.zeros((3, 2))), "rule='mode'; it is one of"),
        (lambda: breakdown.error("Bulyan", np.zeros((6, 2))), "Bulyan of 6 updates withstands"),
    ],
)
def test_what_cannot_be_is_refused(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_the_attack_explorer_follows_each_control():
    explorer, seen = attack_explorer("median", "far", clients=11, attackers=2), set()
    changes = {"attackers": 3, "clients": 15, "attack": "close", "rule": "Bulyan"}
    for name, value in changes.items():
        explorer.controls[name].value = value
        seen.add((explorer.picture.value, explorer.caption.value))
    assert len(seen) == 4
    updates = breakdown.attacked_updates(15, 3, "close")
    assert explorer.errors == {rule: breakdown.error(rule, updates) for rule in breakdown.RULES}
    assert f"Bulyan ends {explorer.errors['Bulyan']:.3g} from the truth" in explorer.caption.value
    explorer.controls["attackers"].value = 16
    assert "attackers=16 of 15 clients; it is 0 to 15.</p>" in explorer.caption.value
    assert explorer.picture.value == ""


def test_every_control_has_a_name():
    for explorer in (gap_explorer(), attack_explorer()):
        for control in explorer.controls.values():
            assert isinstance(control, w.BoundedIntText | w.Dropdown)
            assert control.description


def test_harm_shows_means_over_seeds():
    rows = {"clean": {"no defence": [1.0, 3.0], "Krum": [1.0]}, "attacked": {"no defence": [0.0]}}
    figure = bars.harm(rows, "fall")
    assert [(bar.name, bar.y, bar.x) for bar in figure.data] == [
        ("no defence", ("clean", "attacked"), (2.0, 0.0)),
        ("Krum", ("clean",), (1.0,)),
    ]
    whiskers = figure.data[0].error_x
    assert (whiskers.array, whiskers.arrayminus, whiskers.visible) == ((1, 0), (1, 0), True)
    assert not figure.data[1].error_x.visible
    said = "Fall. clean: no defence 2 (1 to 3), Krum 1; attacked: no defence 0. Whiskers: from"
    assert said in caption(figure)
    assert "Whiskers" not in caption(bars.harm({"clean": {"Krum": [1.0]}}, "fall"))
