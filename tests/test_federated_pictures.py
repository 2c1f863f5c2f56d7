"""Figures of federated runs show their data and say it in the caption; the explorer follows."""

import pytest

from workbench.federated import FederatedTask, round_traffic
from workbench.figures import caption
from workbench.figures import federated as figures
from workbench.units import human_bytes
from workbench.widgets.federated import RANKS, traffic

CLIENTS = {"trivia": {"train": 30, "held out": 9}, "weather": {"train": 10, "held out": 2}}


def bars(figure):
    return {bar.name: dict(zip(bar.y, bar.x, strict=True)) for bar in figure.data}


def test_sizes_are_stacked_with_the_largest_on_top():
    figure = figures.client_sizes(CLIENTS, "pairs")
    assert bars(figure) == {
        "train": {"weather": 10, "trivia": 30},
        "held out": {"weather": 2, "trivia": 9},
    }
    assert figure.data[0].y[-1] == "trivia"  # plotly draws from below
    assert "hold 40 pairs to train on" in caption(figure)
    assert "trivia, has 75% of them; the smallest, weather, has 10" in caption(figure)


def test_losses_have_a_line_a_seed_and_their_mean():
    runs = {
        "federated": [[2.0, 1.6, 1.4], [3.0, 2.0, 1.8]],
        "local only": [[2.0, 1.9], [3.0, 2.9]],
    }
    figure = figures.loss_rounds(runs, steps_per_round=20)
    federated = [line for line in figure.data if line.name == "federated"]
    assert [line.y for line in federated] == [(2, 1.6, 1.4), (3, 2, 1.8), (2.5, 1.8, 1.6)]
    assert [line.showlegend for line in federated] == [False, False, True]
    alone = [line for line in figure.data if line.name == "local only"]
    assert all(line.x == (0, 2) and line.line.dash == "dash" for line in alone)
    assert figure.layout.shapes[0].y0 == 2.5  # the pretrained start
    assert "lowest first: federated 1.600, local only 2.400" in caption(figure)
    assert "20 steps a round" in figure.layout.title.text
    assert "dashed" in caption(figure)
    assert "dashed" not in caption(figures.loss_rounds({"federated": runs["federated"]}))


def test_two_rounds_are_no_start_and_end():
    figure = figures.loss_rounds({"federated": [[2.0, 1.5]]})
    assert figure.data[0].x == (0, 1)
    assert figure.data[0].line.dash == "solid"


def test_gains_are_differences_from_the_start():
    start = {"trivia": 2.0, "weather": 1.0}
    after = {
        "federated": {"trivia": 1.5, "weather": 0.9},
        "local only": {"trivia": 1.8, "weather": 1.2},
    }
    figure = figures.client_gains(start, after)
    assert bars(figure)["federated"] == pytest.approx({"weather": 0.1, "trivia": 0.5})
    assert bars(figure)["local only"] == pytest.approx({"weather": -0.2, "trivia": 0.2})
    assert "federated: 2 of 2 clients gained; most trivia (+0.500 nat)" in caption(figure)
    assert "local only: 1 of 2 clients gained" in caption(figure)


def test_pairs_show_each_seed_and_the_interval_of_the_mean():
    figure = figures.paired_differences(
        {"federated": [-0.1, -0.2, 0.03], "centralised": [-0.3, -0.3, -0.3]},
        {"federated": (-0.2, 0.02)},
    )
    band, points, other = figure.data
    assert (band.x, band.mode) == ((-0.2, 0.02), "lines")
    assert points.x == (-0.1, -0.2, 0.03)
    assert other.y == ("centralised",) * 3
    low, high = figure.layout.xaxis.range
    assert low < -0.3  # no bar or point is cut off
    assert high > 0.03
    said = "lower in 2 of 3 seeds, mean -0.090 nat (interval -0.200 to +0.020)"
    assert said in caption(figure)
    assert "centralised: lower in 3 of 3 seeds, mean -0.300 nat." in caption(figure)


def test_a_small_difference_is_said_in_plain_decimals():
    mine = {"mine": "#123456"}
    figure = figures.paired_differences({"mine": [-0.000123]}, against="FedAvg", colours=mine)
    assert "mine: lower in 1 of 1 seed, mean -0.00012 nat." in caption(figure)
    assert figure.layout.xaxis.exponentformat == "none"  # no SI prefix before the unit
    assert figure.data[0].marker.color == mine["mine"]


def test_traffic_counts_clients_and_rounds():
    sent = {"adapters": 10_000, "all weights": 2_000_000}
    figure = figures.traffic(sent, clients=4, rounds=10)
    assert dict(zip(figure.data[0].y, figure.data[0].x, strict=True)) == {
        "adapters": 400_000,
        "all weights": 80_000_000,
    }
    assert figure.layout.xaxis.type != "log"  # bars have no length on a log scale
    picture, text = figures.traffic_svg(sent, clients=4, rounds=10)
    assert text == caption(figure)
    assert "all weights sends 80 MB, 200 times as much" in text
    assert "400,000 B" in picture


def test_captions_are_of_the_figures_data():
    for figure in (
        figures.client_sizes(CLIENTS),
        figures.loss_rounds({"federated": [[2.0, 1.5]]}),
        figures.client_gains({"a": 1.0}, {"federated": {"a": 0.5}}),
        figures.paired_differences({"federated": [-0.1]}),
        figures.traffic({"adapters": 1, "all": 2}, 1),
    ):
        assert caption(figure).endswith(".")
        assert figure.layout.paper_bgcolor == "#FFFFFF"


def test_the_explorer_follows_each_control_by_the_closed_form():
    explorer, seen = traffic("minilm", rank=8, clients=4, rounds=10), set()
    for name, value in {"rank": 16, "clients": 9, "rounds": 3, "model": "smollm2-135m"}.items():
        explorer.controls[name].value = value
        seen.add((explorer.picture.value, explorer.caption.value))
    assert len(seen) == 4
    task = FederatedTask(
        model="smollm2-135m", num_clients=9, clients_per_round=9, lora_rank=16, rounds=3
    )
    once = round_traffic(task)
    total = task.rounds * (once.uplink_bytes + once.downlink_bytes)
    assert f"{total:,} B" in explorer.picture.value
    assert human_bytes(total) in explorer.caption.value
    assert max(RANKS) in explorer.controls["rank"].options
