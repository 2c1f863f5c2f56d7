"""How far mean(B) mean(A) is from the mean of B A, and what each method makes of it."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from math import nan, sqrt

import numpy as np

from workbench.federated.learner import Learner
from workbench.federated.lora import read_adapter
from workbench.federated.methods.base import Arrays, Method, ServerState, Update
from workbench.federated.methods.factors import Pair, pairs, product, shares, stacked
from workbench.federated.task import FederatedTask

#: The names of an adapter that stands alone.
ONE = Pair("one.lora_A.weight", "one.lora_B.weight", "one.weight")


@dataclass(frozen=True)
class Gap:
    """Sizes (Frobenius norms over all adapters) of the exact mean of B A, and of what is missed."""

    exact: float
    missed: float

    @property
    def relative(self) -> float:
        """What is missed as a share of the exact mean; 0 where both are 0."""
        return self.missed / self.exact if self.exact else 0.0


def factor_gap(updates: Sequence[Update]) -> Gap:
    """The gap of averaging A and B apart: ``|| sum p_k B_k A_k - Bm Am ||``, from the factors.

    What is missed is ``sum p_k (B_k - Bm)(A_k - Am)`` with the means ``Bm`` and ``Am``: it takes
    clients that differ in *both* factors. No matrix of the weight's size is made: the square of
    ``|| L R ||`` is the sum of the entries of ``(L^T L) * (R R^T)``. LoRA's scale is left out; it
    is the same on both.

    Raises
    ------
    ValueError
        If there are no updates, or no adapters in them.

    Examples
    --------
    >>> one = {ONE.a: np.array([[2.0]]), ONE.b: np.array([[2.0]])}
    >>> two = {ONE.a: np.array([[0.0]]), ONE.b: np.array([[0.0]])}
    >>> factor_gap([Update(0, one, 5, 0.0), Update(1, two, 5, 0.0)])
    Gap(exact=2.0, missed=1.0)
    """
    if not updates or not pairs(updates[0].arrays):
        raise ValueError(
            f"{len(updates)} updates without a pair of lora_A and lora_B: there is nothing to "
            "average. Give at least one update of a task with tune='lora'."
        )
    exact = missed = 0.0
    for pair in pairs(updates[0].arrays):
        means = [_mean(updates, name) for name in (pair.b, pair.a)]
        exact += _square(*stacked(updates, pair))
        missed += _square(*stacked(updates, pair, *means))
    return Gap(sqrt(exact), sqrt(missed))


def _mean(updates: Sequence[Update], name: str) -> np.ndarray:
    parts = zip(shares(updates), updates, strict=True)
    return sum(p * u.arrays[name].astype(np.float64) for p, u in parts)


def _square(left: np.ndarray, right: np.ndarray) -> float:
    return max(0.0, float(np.sum((left.T @ left) * (right @ right.T))))


def expected_gap(rank: int, spread: float, clients: int, shape: tuple[int, int]) -> Gap:
    """The gap of clients drawn by `drawn_factors`: roots of the mean squares, in closed form.

    With ``o x i`` the shape, ``s`` the spread, r the rank, K clients: what is missed is
    ``s^2 sqrt(o i r (K - 1)) / K``, the exact mean ``sqrt(o i r (1 + 2 s^2 / K + s^4 / K))``.
    Real clients' factors are not normal and not drawn apart.

    Examples
    --------
    >>> round(expected_gap(rank=8, spread=1.0, clients=8, shape=(64, 64)).relative, 3)
    0.282
    >>> expected_gap(rank=8, spread=0.0, clients=8, shape=(64, 64)).missed
    0.0
    """
    size = shape[0] * shape[1] * rank
    missed = spread**2 * sqrt(size * (clients - 1)) / clients
    return Gap(sqrt(size * (1 + 2 * spread**2 / clients + spread**4 / clients)), missed)


def drawn_factors(
    draw: np.random.Generator, rank: int, spread: float, clients: int, shape: tuple[int, int]
) -> list[Update]:
    """Clients of equal size: a common A and B of standard normal numbers, and their own beside it.

    ``A_k = A + s N`` and ``B_k = B + s N'``, each number of N and N' drawn anew; s is the spread.
    """
    (outer, inner), updates = shape, []
    a, b = draw.normal(size=(rank, inner)), draw.normal(size=(outer, rank))
    for client in range(clients):
        own = {ONE.a: a + spread * draw.normal(size=a.shape)}
        own[ONE.b] = b + spread * draw.normal(size=b.shape)
        updates.append(Update(client, own, 1, 0.0))
    return updates


def first_updates(learner: Learner, clients: Sequence[int] | None = None) -> list[Update]:
    """What clients send in round 1, trained one after the other, without Flower.

    Parameters
    ----------
    learner : Learner
        The task's model and data; the method of its task decides how clients train.
    clients : sequence of int or None
        Partition ids; ``None`` stands for all.
    """
    method, updates = learner.task.method, []
    server = start_of(learner)
    for client in range(len(learner.clients)) if clients is None else clients:
        done = method.train(learner, method.outgoing(server, client), client, 1, {})
        rows = len(learner.clients[client].train)
        updates.append(Update(client, done.arrays, rows, done.loss))
    return updates


def updates_by_step(
    learner: Learner, clients: Sequence[int] | None = None
) -> dict[int, list[Update]]:
    """What FedAvg's clients would send in round 1 after 1, 2, .. of their local steps.

    One training gives all: the adapter is copied between the steps. ``loss`` is left at NaN.
    """
    found = {step: [] for step in range(1, learner.task.local_steps + 1)}
    for client in range(len(learner.clients)) if clients is None else clients:
        seen = []
        learner.train(
            learner.start(), client, 1, gradient=lambda p, seen=seen: seen.append(read_adapter(p))
        )
        seen.append(read_adapter(learner.parameters))  # the first is the start
        rows = len(learner.clients[client].train)
        for step, arrays in enumerate(seen[1:], 1):
            found[step].append(Update(client, arrays, rows, nan))
    return found


def first_gaps(learner: Learner, methods: Sequence[Method]) -> dict[str, Gap]:
    """Each method's first round, all clients trained: how far its model is from the exact mean.

    For methods with unlike ranks, the model is that of the largest one.
    """
    gaps = {}
    for method in methods:
        mine = copy(learner)
        mine.task = replace(learner.task, method=method)
        server, updates = start_of(mine), first_updates(mine)
        exact = exact_change(updates, server.weights, server.scale)
        gaps[type(method).__name__] = change_gap(joined_change(updates, server, mine.task), exact)
    return gaps


def start_of(learner: Learner) -> ServerState:
    """The server's state before round 1."""
    weights, task = learner.start(), learner.task
    return ServerState(
        weights, {}, task.method.start(weights, task.num_clients), scale=task.lora_scale
    )


def exact_change(updates: Sequence[Update], start: Arrays, scale: float) -> Arrays:
    """``scale * sum p_k B_k A_k`` by the weight's name; a factor that isn't sent is start's."""
    whole = [replace(update, arrays=start | update.arrays) for update in updates]
    return {pair.weight: product(*stacked(whole, pair), scale) for pair in pairs(start)}


def joined_change(updates: Sequence[Update], server: ServerState, task: FederatedTask) -> Arrays:
    """What a round of these updates adds to the pretrained weights, by the name of the weight.

    It is what was merged into the base, and ``scale * B A`` of the server's new adapters.
    """
    method = task.method
    after = method.step(server, method.join(updates, server), updates, task.num_clients)
    return {
        pair.weight: after.base_deltas.get(pair.weight, np.float32(0))
        + product(after.weights[pair.b], after.weights[pair.a], server.scale)
        for pair in pairs(after.weights)
    }


def change_gap(found: Mapping[str, np.ndarray], exact: Mapping[str, np.ndarray]) -> Gap:
    """How far changes of the same weights are from the exact ones.

    Examples
    --------
    >>> change_gap({"q": np.array([3.0, 0.0])}, {"q": np.array([3.0, 4.0])}).relative
    0.8
    """
    size, off = (
        sqrt(sum(float(np.sum(np.square(d, dtype=np.float64))) for d in many))
        for many in (exact.values(), [found[name] - exact[name] for name in exact])
    )
    return Gap(size, off)


def singular_values(updates: Sequence[Update], pair: Pair) -> np.ndarray:
    """Singular values of ``sum p_k B_k A_k``, the largest first: at most the sum of the ranks."""
    left, right = stacked(updates, pair)
    r_left, r_right = np.linalg.qr(left, mode="r"), np.linalg.qr(right.T, mode="r")
    return np.linalg.svd(r_left @ r_right.T, compute_uv=False)
