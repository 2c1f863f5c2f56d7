"""Figures of privacy show their data and say it in the caption; the budget follows the controls."""

import numpy as np
import pytest

from workbench.federated import CentralDP, FederatedTask
from workbench.federated.accounting import epsilon_spent
from workbench.federated.lora import adapter_shapes
from workbench.figures import caption
from workbench.figures import privacy as figures
from workbench.widgets.privacy import NUMBERS, budget, epsilon_explorer


def test_one_masked_change_is_a_cloud_and_the_mean_a_line():
    draw = np.random.default_rng(0)
    change, masked, exact = (
        draw.normal(size=200),
        draw.integers(0, 2**32, 200),
        draw.normal(size=200),
    )
    figure = figures.masked_change(change, masked, exact, exact + 1e-3)
    assert np.array_equal(figure.data[0].y, masked)
    assert np.array_equal(figure.data[1].x, exact)
    assert "correlation +1.0000; the largest difference is 0.001" in caption(figure)


def test_recalls_are_lines_with_the_rank_marked():
    recalls = {"SGD": {4: 1.0, 20: 0.0}, "AdamW": {4: 0.0}}
    figure = figures.tokens_read(recalls, 16)
    assert [line.name for line in figure.data] == list(recalls)
    assert figure.data[0].y == (1.0, 0.0)
    assert figure.layout.shapes[0].x0 == 16
    assert "SGD: 100% of 4 tokens, 0% of 20; AdamW: 0% of 4 tokens." in caption(figure)


def test_an_attack_stands_beside_what_its_defence_costs():
    told = {"no defence": (0.95, 0.9, 1.0), "noise": (0.5, 0.3, 0.7)}
    figure = figures.attack_and_utility(told, {"no defence": 0.3, "noise": -0.1})
    points, bars = figure.data
    assert points.x == (0.95, 0.5)
    assert np.allclose(points.error_x.arrayminus, [0.05, 0.2])
    assert bars.x == (0.3, -0.1)
    assert "noise: area 0.50 (0.30 to 0.70), held-out loss rose by 0.100 nat" in caption(figure)


@pytest.mark.parametrize("kind", ["poisson", "fixed"])
def test_the_budget_is_what_a_run_would_report(kind):
    privacy = CentralDP(1.5, sampling=kind)
    task = FederatedTask(num_clients=40, clients_per_round=4, privacy=privacy)
    spent = budget(1.5, 40, 4, 20)[kind]
    assert list(spent) == [5, 10, 20]
    assert spent == pytest.approx({n: epsilon_spent(task, n, 0) for n in spent})


def test_the_explorer_follows_its_controls():
    explorer = epsilon_explorer(1.0, 100, 10, 40)
    before, picture = explorer.spent["poisson"][40], explorer.picture.value
    explorer.controls["noise"].value = 2.0
    assert explorer.spent["poisson"][40] < before
    assert explorer.picture.value != picture
    assert f"{explorer.spent['fixed'][40]:.3g} (fixed)" in explorer.caption.value
    assert "q = 0.1" in explorer.caption.value
    explorer.controls["sampled"].value = 200
    assert "Not possible: 200 clients in a round of 100" in explorer.caption.value


@pytest.mark.parametrize("model", ["minilm", "smollm2-135m"])
def test_the_numbers_of_an_adapter_are_those_of_the_models(model):
    held = sum(map(np.prod, adapter_shapes(FederatedTask(model=model)).values()))
    assert held in NUMBERS.values()
