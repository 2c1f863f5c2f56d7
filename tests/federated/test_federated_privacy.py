"""Clipping bounds, noise has the stated size, and epsilon is what dp-accounting says."""

import numpy as np
import pytest
from scipy.stats import norm
from small_tasks import linear_task

from workbench.federated import CentralDP, FedAvg, FederatedTask, LocalDP, simulate
from workbench.federated.accounting import (
    epsilon_after,
    epsilon_said,
    epsilon_spent,
    local_multiplier,
)
from workbench.federated.clock import may_have_sent
from workbench.federated.joining import private_mean
from workbench.federated.methods.base import ServerState, Update
from workbench.federated.partition import sample
from workbench.federated.traffic import largest_norm
from workbench.federated.updates import clipped, norm_of, sendable

SERVER = ServerState({"a": np.full((40, 50), 2.0, np.float32), "b": np.zeros((), np.float32)})


def task_with(privacy, **values):
    return FederatedTask(num_clients=8, clients_per_round=4, privacy=privacy, **values)


def test_all_arrays_are_clipped_by_one_factor():
    change = {"a": np.full((2, 2), 3.0, np.float32), "b": np.array(8.0, np.float32)}
    assert norm_of(change) == 10.0
    half = clipped(change, 5.0)
    assert half["a"][0, 0] == 1.5
    assert half["b"] == 4.0  # an array without dims is clipped, too
    assert clipped(change, 10.0) is change
    assert norm_of(clipped({"a": np.zeros(3)}, 1.0)) == 0.0


def test_one_client_moves_the_mean_by_at_most_its_share():
    """Whatever it sends, and however many rows it claims; the noise cancels."""
    task = task_with(CentralDP(1.0, clip_norm=0.5))
    honest = [Update(i, SERVER.weights, 10, 0.0) for i in range(3)]
    far = {name: a + np.float32(1e6) for name, a in SERVER.weights.items()}
    without = private_mean(task, SERVER, honest, 1)
    with_it = private_mean(task, SERVER, [*honest, Update(3, far, 10**6, 0.0)], 1)
    moved = norm_of({name: with_it[name].astype(float) - without[name] for name in with_it})
    assert moved == pytest.approx(0.5 / 4, rel=1e-3)


@pytest.mark.parametrize("answered", [0, 1, 4])
def test_the_noise_does_not_depend_on_who_answers(answered):
    task = task_with(CentralDP(2.0, clip_norm=0.5))
    updates = [Update(i, SERVER.weights, 1, 0.0) for i in range(answered)]
    joined = private_mean(task, SERVER, updates, 3)
    noise = joined["a"].astype(float) - SERVER.weights["a"]
    assert noise.std() == pytest.approx(2.0 * 0.5 / 4, rel=0.1)
    assert abs(noise.mean()) < 0.03
    assert not np.array_equal(joined["a"], private_mean(task, SERVER, updates, 4)["a"])


def test_a_poisson_sample_varies_and_may_be_empty():
    task = task_with(CentralDP(1.0))
    sizes = [len(sample(task, number)) for number in range(400)]
    assert np.mean(sizes) == pytest.approx(4, abs=0.3)
    assert min(sizes) == 0
    fixed = task_with(CentralDP(1.0, sampling="fixed"))
    assert {len(sample(fixed, number)) for number in range(20)} == {4}


def test_without_sampling_epsilon_is_that_of_the_gaussian_mechanism():
    """Against delta(epsilon) of one Gaussian query, exact; the bound must lie a little above."""
    everyone = FederatedTask(num_clients=4, clients_per_round=4, privacy=CentralDP(2.0))
    found = epsilon_spent(everyone, 4, 4)  # four rounds at z = 2 are one query at z = 1

    def delta(epsilon, z):
        return norm.cdf(0.5 / z - epsilon * z) - np.exp(epsilon) * norm.cdf(-0.5 / z - epsilon * z)

    assert delta(found, 1.0) < 1e-5 < delta(0.85 * found, 1.0)
    multiplier = local_multiplier(LocalDP(0.7))
    assert delta(0.7, multiplier / 2) == pytest.approx(1e-5, rel=1e-3)  # at sensitivity 2C


def test_fixed_samples_are_accounted_as_replacing_a_client():
    """With all clients sampled, replacing one moves the sum by 2C: half the noise multiplier."""
    four = {"num_clients": 4, "clients_per_round": 4}
    fixed = FederatedTask(privacy=CentralDP(2.0, sampling="fixed"), **four)
    halved = FederatedTask(privacy=CentralDP(1.0), **four)
    assert epsilon_spent(fixed, 3, 3) == pytest.approx(epsilon_spent(halved, 3, 3))
    subset = task_with(CentralDP(2.0, sampling="fixed"))
    assert 0 < epsilon_spent(subset, 1, 1) < epsilon_spent(subset, 2, 2)


def test_local_noise_composes_over_the_rounds_of_the_busiest_client():
    task = task_with(LocalDP(0.5))
    spent = [epsilon_spent(task, 9, most) for most in (0, 1, 2, 4)]
    assert spent[:2] == [0.0, 0.5]
    assert spent == sorted(spent)
    assert epsilon_spent(task_with(None), 5, 5) is None


def test_an_update_that_was_sent_and_refused_has_cost_privacy_too():
    """The server has seen it; who dropped out on the simulated clock has sent nothing."""
    given = {"clients_per_round": 4, "rounds": 4, "privacy": LocalDP(1.0)}
    used = simulate(linear_task(**given), progress=False)
    refused = simulate(linear_task(max_update_norm=29.5, **given), progress=False)
    assert any(each.failed for each in refused.rounds)
    assert [r.epsilon for r in refused.rounds] == [r.epsilon for r in used.rounds]
    reasons = {"a": "refused: norm", "b": "dropped out (simulated)", "c": "no answer within 3 s"}
    assert may_have_sent(["d"], reasons) == {"a", "c", "d"}


def test_a_client_sends_its_clipped_update_with_noise():
    task = task_with(LocalDP(1.0, clip_norm=0.5))
    far = {name: a + np.float32(100) for name, a in SERVER.weights.items()}
    sent, _ = sendable(task, far, SERVER.weights, 0, 1, {})
    noise = sent["a"].astype(float) - SERVER.weights["a"]
    assert noise.std() == pytest.approx(local_multiplier(task.privacy) * 0.5, rel=0.1)
    assert sent["b"] != 0.0
    other, _ = sendable(task, far, SERVER.weights, 1, 1, {})
    assert not np.array_equal(sent["a"], other["a"])
    central, _ = sendable(task_with(CentralDP(clip_norm=0.5)), far, SERVER.weights, 0, 1, {})
    change = {n: a.astype(float) - SERVER.weights[n] for n, a in central.items()}
    assert norm_of(change) == pytest.approx(0.5, rel=1e-3)


def test_other_clients_updates_refuse_nobody_where_the_server_clips():
    """A median of norms would let one client decide whether another one counts."""
    norms = [1.0, 1.0, 1.0, 99.0]
    assert largest_norm(norms, task_with(CentralDP())) == np.inf
    assert largest_norm(norms, task_with(None)) == 10.0


def test_an_epsilon_says_what_it_is_of():
    said = CentralDP().describe(task_with(CentralDP()))
    assert said == "unit: a client; add or remove one client; poisson sampling, q=0.5"
    assert "replace" in LocalDP().describe(task_with(LocalDP()))
    shown = epsilon_said(task_with(CentralDP()), 1.25)["epsilon"]
    assert shown == f"1.25 ({said})"
    assert epsilon_said(task_with(None), None) == {}
    assert FedAvg().rows_weigh()


@pytest.mark.parametrize(("z", "sampled", "rounds"), [(1.0, 8, 100), (0.5, 1, 100), (1.0, 1, 20)])
def test_an_epsilon_is_that_of_the_librarys_own_accountant(z, sampled, rounds):
    import dp_accounting as dp
    from dp_accounting.rdp import RdpAccountant

    theirs = RdpAccountant()
    theirs.compose(dp.PoissonSampledDpEvent(sampled / 8, dp.GaussianDpEvent(z)), rounds)
    privacy = CentralDP(noise_multiplier=z)
    (ours,) = epsilon_after(privacy, sampled, 8, [rounds])
    assert ours == pytest.approx(theirs.get_epsilon(privacy.delta), rel=1e-9)
