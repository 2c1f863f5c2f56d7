"""What the experiments share: one small federation, scored on the same rows in every arm."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import log10

import numpy as np

from workbench.datasets import load
from workbench.federated.baselines import local_only
from workbench.federated.history import Evaluation, History
from workbench.federated.leakage import row_losses
from workbench.federated.learner import Learner
from workbench.federated.lora import Weights, read_adapter, write_adapter
from workbench.federated.methods.base import ServerState, Update
from workbench.federated.options.partition import Dirichlet
from workbench.federated.partition import Row, generator
from workbench.federated.simulation import simulate
from workbench.federated.task import FederatedTask

#: Four clients, all in every round: 24 client steps of 8 pairs an arm.
CLIENTS, ROUNDS, STEPS, BATCH = 4, 2, 3, 8
#: Held-out pairs of each client, and of all clients together, behind a loss.
OWN_ROWS, COMMON_ROWS = 16, 48
#: Label skew: most of a topic is with one client.
SKEWED = Dirichlet(alpha=0.1)
#: Four topics of many pairs.
TOPICS = ("ai", "coding", "psychology", "trivia")
#: Purposes of random numbers, apart from those of a run.
COMMON, PLANTED = 101, 102


def base(seed: int, **changes) -> FederatedTask:
    """The federation of every claim: MiniLM, chatterbot's topics, LoRA, FedAvg."""
    sizes = {"num_clients": CLIENTS, "clients_per_round": CLIENTS, "rounds": ROUNDS}
    sizes |= {"local_steps": STEPS, "batch_size": BATCH, "eval_examples": OWN_ROWS}
    return FederatedTask(seed=seed, **{**sizes, **changes})


def run(task: FederatedTask) -> History:
    """Simulate a task; the same one is run once, whichever claims ask for it."""
    return _run(task.to_json())


@lru_cache(maxsize=64)
def _run(task_json: str) -> History:
    return simulate(FederatedTask.from_json(task_json), progress=False)


def alone(task: FederatedTask) -> Evaluation:
    """Every client by itself, with the steps that it makes in the federation; once a task."""
    return _alone(task.to_json())


@lru_cache(maxsize=64)
def _alone(task_json: str) -> Evaluation:
    return local_only(FederatedTask.from_json(task_json), progress=False)


def common_rows(seed: int, split: str = "test", count: int = COMMON_ROWS) -> list[Row]:
    """Held-out pairs of all topics: the same for every arm, however it deals the rows."""
    rows = [row for row in load("chatterbot") if row["split"] == split]
    chosen = generator(seed, COMMON).permutation(len(rows))[:count]
    return [rows[i] for i in sorted(chosen)]


def common_loss(learner: Learner, weights: Weights, rows: Sequence[Row]) -> float:
    """Mean loss of the rows, each among all their answers [nat]."""
    return float(row_losses(learner, weights, rows).mean())


def common_end(history: History) -> float:
    """The loss on the common rows at the end of a run [nat]."""
    learner = _judge()
    learner.write_base(history.base_deltas)
    return common_loss(learner, history.weights, common_rows(history.task.seed))


@lru_cache(maxsize=1)
def _judge() -> Learner:
    """A model to score weights with, loaded once; its own seed and clients don't matter."""
    return Learner(base(0))


def tuned_on(
    learner: Learner, weights: Weights, rows: Sequence[Row], steps: int, draw: np.random.Generator
) -> Weights:
    """The model after some steps on rows, from ``weights`` on."""
    write_adapter(learner.parameters, weights)
    learner.steps(rows, steps, draw, learner.optimizer())
    return read_adapter(learner.parameters)


def rounds_from(
    learner: Learner, weights: Weights, clients: Iterable[int], numbers: Iterable[int]
) -> tuple[Weights, list[list[Update]]]:
    """FedAvg from any model, by the library's own training and mean, without messages.

    Returns the model after the rounds, and every round's updates.
    """
    clients, kept = list(clients), []
    for number in numbers:
        updates = []
        for client in clients:
            trained, loss = learner.train(weights, client, number)
            updates.append(Update(client, trained, len(learner.clients[client].train), loss))
        weights = learner.task.method.join(updates, ServerState(weights))
        kept.append(updates)
    return weights, kept


def random_pairs(rows: Sequence[Row], count: int, seed: int, words: int = 4) -> list[Row]:
    """Questions and answers of random words of ``rows``: nothing but training links them."""
    known = sorted({word for row in rows for word in row["question"].split()})
    draw = generator(seed, PLANTED)
    texts = [" ".join(draw.choice(known, words).tolist()) for _ in range(2 * count)]
    return [{"question": q, "answer": a} for q, a in zip(texts[::2], texts[1::2], strict=True)]


def shifted(weights: Weights, changes: Iterable[Weights], factor: float = 1.0) -> Weights:
    """Weights plus ``factor`` times the sum of changes, in float32."""
    total = {name: np.zeros(array.shape, np.float64) for name, array in weights.items()}
    for change in changes:
        for name in total:
            total[name] += change[name]
    return {n: (a + factor * total[n]).astype(np.float32) for n, a in weights.items()}


def bytes_at_equal_loss(one: History, other: History) -> tuple[float, float]:
    """Powers of ten of the bytes that clients had sent when each run first reached a common loss.

    The common loss is the higher of the two runs' lowest ones, so both have reached it. It is
    looked for at the ends of rounds; the pretrained start has cost nothing and is not counted.
    """
    target = max(min(each.eval_loss for each in run.rounds) for run in (one, other))
    return _until(one, target), _until(other, target)


def _until(run: History, target: float) -> float:
    sent = 0
    for each in run.rounds:
        sent += each.uplink_bytes
        if each.eval_loss <= target:
            break
    return log10(sent)


def few_rows(seed: int, each: int = 16, topics: Sequence[str] = TOPICS) -> list[Row]:
    """Some pairs of a few large topics, to which pairs of one's own can be added."""
    draw, rows = generator(seed, PLANTED, 1), []
    for topic in topics:
        for split, count in (("train", each), ("test", OWN_ROWS)):
            mine = [r for r in load("chatterbot") if r["client"] == topic and r["split"] == split]
            rows += [mine[i] for i in sorted(draw.permutation(len(mine))[:count])]
    return rows


def planted(rows: Sequence[Row], client: str, pairs: Sequence[Row], times: int = 1) -> list[Row]:
    """The rows, and pairs that a client trains on besides, each so many times."""
    mine = [pair | {"client": client, "split": "train"} for pair in pairs]
    return [*rows, *mine * times]


def on_few(rows: Sequence[Row], seed: int, **changes) -> FederatedTask:
    """A federation of the clients of own rows, with twice the local steps."""
    names = {row["client"] for row in rows}
    sizes = {"num_clients": len(names), "clients_per_round": len(names)}
    return base(seed, dataset=rows, **{"local_steps": 2 * STEPS, **sizes, **changes})


def unequal(seed: int) -> FederatedTask:
    """One owner of 64 pairs and three of 8, each of another topic."""
    rows = few_rows(seed, 64, TOPICS[:1]) + few_rows(seed, 8, TOPICS[1:])
    return base(seed, dataset=rows)
