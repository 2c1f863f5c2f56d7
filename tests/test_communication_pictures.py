"""Figures and explorers of unlike clients and of what travels: their data, captions, callbacks."""

import dataclasses
from collections import Counter

import pandas as pd
import pytest

from workbench.federated import Dirichlet, FederatedTask, clients_of, round_traffic, scale_cost
from workbench.figures import caption, communication, heterogeneity
from workbench.widgets.communication import budget_explorer
from workbench.widgets.heterogeneity import KINDS, partition_explorer

HELD = [{"a": 6, "b": 2}, {"a": 1, "c": 1}]
CLOCK = pd.DataFrame(
    {
        "round": [1, 1, 2, 2],
        "client": [0, 1, 0, 1],
        "speed": [0.5, 2.0, 0.5, 2.0],
        "outcome": ["late", "used", "not asked", "used"],
    }
)


def test_holdings_are_bars_by_source():
    figure = heterogeneity.holdings(HELD, "pairs")
    found = {bar.name: bar.x for bar in figure.data}
    assert found == {"a": (6, 1), "b": (2, 0), "c": (0, 1)}
    assert "2 to 8 pairs; the largest has 80%" in caption(figure)
    assert "62% of a client's" in caption(figure)  # (6/8 + 1/2) / 2
    many = heterogeneity.holdings([{str(i): 20 - i for i in range(12)}])
    assert many.data[-1].name == heterogeneity.REST
    assert many.data[-1].x == (12 + 11 + 10 + 9,)
    picture, text = heterogeneity.holdings_svg(HELD, "pairs")
    assert text == caption(figure)
    assert "client 0: 6 pairs of a" in picture


def test_the_clock_is_a_grid_with_the_slowest_below():
    figure = heterogeneity.clock_grid(CLOCK)
    found = {trace.name: list(zip(trace.x, trace.y, strict=True)) for trace in figure.data}
    assert found["used"] == [(1, "client 1"), (2, "client 1")]
    assert found["late"] == [(1, "client 0")]
    assert figure.layout.yaxis.categoryarray == ("client 0", "client 1")
    assert "used 2, late 1, not asked 1" in caption(figure)
    assert "simulated" in figure.layout.title.text
    shares = heterogeneity.share_used(CLOCK)
    assert (shares.data[0].x, shares.data[0].y) == ((0.5, 2.0), (0.0, 1.0))
    assert "used in 0% of the rounds, the fastest in 100%; 1 of 2" in caption(shares)
    assert "asked, 75% of the rounds on average" in caption(shares)


def test_loss_stands_over_bytes():
    figure = communication.loss_bytes({"all": (4000, [2.0, 2.2]), "few": (400, [2.4, 2.4])})
    points, mean = figure.data[:2]
    assert (points.x, points.y) == ((4000, 4000), (2.0, 2.2))
    assert (mean.x, mean.y) == ((4000,), (pytest.approx(2.1),))
    assert "means of 2 seeds: few: 400 B and 2.400 nat" in caption(figure)


def test_scale_has_a_line_a_model():
    table = scale_cost(clients=[10, 100])
    figure = communication.scale_lines(table, "run_bytes", "bytes of a run")
    assert [line.name for line in figure.data] == table["model"].unique().tolist()
    assert list(figure.data[0].y) == table["run_bytes"][:2].tolist()
    assert "on paper" in figure.layout.title.text
    for axis in (figure.layout.xaxis, figure.layout.yaxis):
        assert axis.type in axis.title.text  # "log"
    assert "By assumption" in caption(communication.scale_lines(table, "hours", "hours"))


def test_the_partition_explorer_shows_the_clients_of_a_run():
    explorer = partition_explorer(alpha=0.5, clients=6)
    for alpha in (0.1, 10.0):
        before = explorer.picture.value
        explorer.controls["alpha"].value = alpha
        task = FederatedTask(num_clients=6, partition=Dirichlet(alpha))
        real = [dict(Counter(row["client"] for row in c.train)) for c in clients_of(task)]
        assert explorer.held == real
        assert explorer.picture.value != before
    for kind in KINDS:
        explorer.controls["partition"].value = kind
        assert explorer.picture.value.startswith("<svg")
        assert "6 clients hold" in explorer.caption.value
        assert explorer.controls["alpha"].disabled == (kind in ("natural", "iid"))
    explorer.controls["partition"].value = "natural"
    natural = clients_of(FederatedTask(num_clients=6))
    assert [sum(each.values()) for each in explorer.held] == [len(c.train) for c in natural]


def test_the_budget_explorer_follows_its_controls():
    explorer = budget_explorer(rank=8, clients=10, uplink=20)
    adapters = explorer.hours["adapters, r = 8"]
    task = FederatedTask(model="smollm2-135m", clients_per_round=1, lora_rank=8)
    up = round_traffic(task).uplink_bytes
    assert adapters["upload"] == pytest.approx(100 * 8 * up / 20e6 / 3600)
    explorer.controls["uplink"].value = 5
    assert explorer.hours["adapters, r = 8"]["upload"] == pytest.approx(4 * adapters["upload"])
    before = explorer.picture.value
    explorer.controls["model"].value = "Llama-3-70B"
    assert explorer.picture.value != before
    assert explorer.hours["all weights"]["upload"] > 1000 * adapters["upload"]
    explorer.controls["compression"].value = "int8"
    packed = dataclasses.replace(task, compression="int8")
    explorer.controls["model"].value = "SmolLM2-135M"
    up = round_traffic(packed).uplink_bytes
    assert explorer.hours["adapters, r = 8"]["upload"] == pytest.approx(100 * 8 * up / 5e6 / 3600)
    assert "By assumption" in explorer.caption.value
