"""Robust joining: against brute force on small arrays, its breakdown points, and why float64."""

import re
from itertools import combinations

import numpy as np
import pytest

from workbench.federated import defence

FAR = 1e6
#: rule -> (how it is called, attackers that it withstands among 11 clients).
RULES = {
    "median": (defence.median, 5),
    "trimmed mean": (lambda updates: defence.trimmed_mean(updates, 0.2), 2),
    "krum": (lambda updates: defence.krum(updates, 4), 4),
    "multi-krum": (lambda updates: defence.multi_krum(updates, 4, 3), 4),
    "bulyan": (lambda updates: defence.bulyan(updates, 2), 2),
}


def draw(clients, numbers=5, seed=0):
    return np.random.default_rng(seed).normal(size=(clients, numbers))


def score_by_hand(updates, client, f):
    """The least sum over all sets of n - f - 2 other clients."""
    others = [i for i in range(len(updates)) if i != client]
    return min(
        sum(np.linalg.norm(updates[i] - updates[client]) ** 2 for i in group)
        for group in combinations(others, len(updates) - f - 2)
    )


@pytest.mark.parametrize(("clients", "f"), [(5, 1), (7, 2), (8, 2)])
def test_krum_is_the_brute_force_choice(clients, f):
    updates = draw(clients)
    scores = [score_by_hand(updates, client, f) for client in range(clients)]
    assert np.allclose(defence.krum_scores(updates, f), scores, rtol=1e-12)
    assert (defence.krum(updates, f) == updates[np.argmin(scores)]).all()
    best = sorted(range(clients), key=scores.__getitem__)[:3]
    assert np.allclose(defence.multi_krum(updates, f, 3), updates[best].mean(0), rtol=1e-14)


@pytest.mark.parametrize("clients", [5, 6])
def test_median_and_trimmed_mean_by_hand(clients):
    updates = draw(clients)
    for column, middle, mean in zip(
        updates.T, defence.median(updates), defence.trimmed_mean(updates, 0.2), strict=True
    ):
        ordered = sorted(column)
        half = [ordered[(clients - 1) // 2], ordered[clients // 2]]
        assert middle == pytest.approx(sum(half) / 2)
        assert mean == pytest.approx(sum(ordered[1:-1]) / (clients - 2))


def test_bulyan_by_hand():
    """Krum five times among seven, then in each coordinate the three nearest to the median."""
    updates, f = draw(7), 1
    left, picked = list(range(7)), []
    while len(picked) < 5:
        neighbours = max(len(left) - f - 2, 1)
        nearest = {
            i: sorted(np.sum((updates[i] - updates[j]) ** 2) for j in left if j != i)[:neighbours]
            for i in left
        }
        picked.append(min(left, key=lambda i: sum(nearest[i])))
        left.remove(picked[-1])
    expected = []
    for column in updates[picked].T:
        middle = np.median(column)
        expected.append(np.mean(sorted(column, key=lambda x: abs(x - middle))[:3]))
    assert np.allclose(defence.bulyan(updates, f), expected, rtol=1e-14)


def attacked(count, clients=11):
    """Honest updates near 1, and attackers who all send the same, far away."""
    updates = 1 + 0.1 * draw(clients)
    updates[:count] = -FAR
    return updates


@pytest.mark.parametrize("rule", RULES)
def test_as_many_attackers_as_promised_are_harmless(rule):
    join, withstood = RULES[rule]
    honest = attacked(withstood)[withstood:]
    joined = join(attacked(withstood))
    assert (joined >= honest.min(0)).all()
    assert (joined <= honest.max(0)).all()


#: rule -> with how many attackers of 11, all sending the same, it breaks.
BREAKS = {"median": 6, "trimmed mean": 3, "krum": 6, "multi-krum": 6, "bulyan": 6}


@pytest.mark.parametrize("rule", RULES)
def test_enough_attackers_decide(rule):
    join, _ = RULES[rule]
    assert (join(attacked(BREAKS[rule])) < -1000).all()


def test_one_attacker_moves_the_plain_mean_anywhere():
    assert (attacked(1).mean(0) < -1000).all()


def test_one_attacker_more_than_promised_wins_over_krum():
    """Of 11, five who agree beat f = 4, four don't: they stand 2.5 from clients who all disagree.

    Honest changes are unit vectors of their own directions, so 2 apart (squared), and the
    attackers' is 2.5 in yet another: 7.25 away. An honest client scores 5 x 2 = 10; four
    attackers 3 x 0 + 2 x 7.25 = 14.5, five of them 4 x 0 + 7.25.
    """
    directions = np.eye(11)
    for attackers, wins in ((4, False), (5, True)):
        updates = directions.copy()
        updates[:attackers] = 2.5 * directions[0]
        assert (defence.krum(updates, 4)[0] == 2.5) == wins
        assert (defence.multi_krum(updates, 4, 3)[0] == 2.5) == wins


@pytest.mark.parametrize(
    ("join", "clients", "text"),
    [
        (lambda u: defence.krum(u, 2), 6, r"Krum with f=2 of 6 updates: .* 2f \+ 3 = 7.*to 1"),
        (lambda u: defence.multi_krum(u, 1, 2), 4, r"of 4 updates: .* = 5\. Take at least 5"),
        (lambda u: defence.multi_krum(u, 1, 5), 5, r"keep=5 of 5 updates with f=1: .* = 4"),
        (lambda u: defence.multi_krum(u, 1, 0), 5, r"keep=0"),
        (lambda u: defence.bulyan(u, 2), 10, r"Bulyan with f=2 of 10 updates: .* 4f \+ 3 = 11"),
        (lambda u: defence.trimmed_mean(u, 0.2), 4, r"int\(0.8\) = 0 .* at least 0.25"),
        (lambda u: defence.trimmed_mean(u, 0.3), 3, r"at least 0.334"),
        (lambda u: defence.trimmed_mean(u, 0.3), 2, r"Take the median, or more clients"),
        (lambda u: defence.trimmed_mean(u, 0.5), 4, r"leaves none"),
    ],
)
def test_too_few_updates_are_refused_with_a_way_out(join, clients, text):
    with pytest.raises(ValueError, match=text):
        join(draw(clients))


@pytest.mark.parametrize("count", range(3, 30))
def test_the_advised_trim_trims(count):
    with pytest.raises(ValueError, match="at least") as refused:
        defence.trimmed(count, 1e-3)
    advised = float(re.search(r"at least ([\d.]+\d)", str(refused.value))[1])
    assert defence.trimmed(count, advised) >= 1


def test_the_least_number_is_enough():
    assert defence.krum(draw(7), 2).shape == (5,)
    assert defence.bulyan(draw(11), 2).shape == (5,)
    assert defence.trimmed_mean(draw(5), 0.2).shape == (5,)


def test_deltas_are_stacked_and_come_back():
    deltas = [{"a": draw(2, 3, seed=i), "b": draw(1, 4, seed=i)[0]} for i in range(3)]
    stacked = defence.stack([{k: v.astype(np.float32) for k, v in d.items()} for d in deltas])
    assert stacked.shape == (3, 10)
    assert stacked.dtype == np.float64
    back = defence.unstack(defence.stack(deltas)[1], deltas[0])
    assert all((back[name] == deltas[1][name]).all() for name in deltas[1])


def test_a_nan_is_refused_and_would_pass_the_median():
    deltas = [{"a": np.array([1.0])}, {"a": np.array([np.nan])}, {"a": np.array([2.0])}]
    assert np.isnan(np.median([delta["a"] for delta in deltas], axis=0)).all()
    with pytest.raises(ValueError, match=r"updates \[1\] of 3 hold numbers that are not finite"):
        defence.stack(deltas)


@pytest.mark.parametrize("other", [{"b": np.ones(2)}, {"a": np.ones(1)}])
def test_updates_that_differ_in_shape_are_refused(other):
    with pytest.raises(ValueError, match="update 1 has arrays"):
        defence.stack([{"a": np.ones(2)}, other])


def test_no_updates_are_refused():
    with pytest.raises(ValueError, match="0 updates"):
        defence.stack([])


def float32_squared_distances(weights):
    """As |x|² + |y|² - 2 x y on whole weights in float32: Flower's way in its multikrum.py."""
    flat = weights.astype(np.float32)
    norms = (flat**2).sum(1)
    return norms[:, None] + norms[None] - 2 * flat @ flat.T


def test_float32_on_whole_weights_is_noise_where_float64_on_changes_is_exact():
    """Updates 1e-5 as large as the weights: distances come out negative, and a choice is luck."""
    generator = np.random.default_rng(1)
    weights = generator.normal(size=20_000)
    deltas = 1e-5 * generator.normal(size=(7, 20_000))
    deltas[0] *= 3  # the attacker is three times farther out
    exact = defence.squared_distances(deltas)
    careless = float32_squared_distances(weights + deltas)
    off = ~np.eye(7, dtype=bool)
    assert (careless[off] <= 0).any()
    assert np.abs(careless - exact)[off].max() > exact.max()
    assert exact[off].min() > 0
    assert np.argmax(defence.krum_scores(deltas, 1)) == 0
