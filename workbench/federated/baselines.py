"""What a federated run is set beside: pooled training, and every client alone.

Both make as many steps as the federated run's clients together, with the same code and from the
same adapter.
"""

import time
from collections.abc import Mapping

from tqdm.auto import tqdm

from workbench.federated.history import Evaluation, History, Round
from workbench.federated.learner import Learner
from workbench.federated.lora import Weights, initial_adapter, read_adapter, write_adapter
from workbench.federated.partition import BATCHES, generator
from workbench.federated.task import FederatedTask


def centralised(task: FederatedTask, progress: bool = True) -> History:
    """Train on all clients' rows pooled in one place: the federated run without its limits.

    One optimizer goes through ``rounds * clients_per_round * local_steps`` steps and is evaluated
    as often as the federated run. No message is sent, so all bytes are 0.
    """
    learner = Learner(task)
    rows = [row for client in learner.clients for row in client.train]
    draw = generator(task.seed, BATCHES)
    weights = initial_adapter(task)
    start, rounds = _evaluate(learner, weights), ()
    optimizer, steps = learner.optimizer(), task.clients_per_round * task.local_steps
    for number in tqdm(range(1, task.rounds + 1), disable=not progress, desc="centralised"):
        started = time.perf_counter()
        write_adapter(learner.parameters, weights)
        losses = learner.steps(rows, steps, draw, optimizer)
        weights = read_adapter(learner.parameters)
        trained_s = time.perf_counter() - started
        loss = sum(losses) / len(losses)
        evaluation = _evaluate(learner, weights)
        seconds = time.perf_counter() - started
        done = Round(
            number, loss, evaluation, 0, 0, 0, seconds, seconds - trained_s, {"pooled": loss}, {}
        )
        rounds = (*rounds, done)
    return History(task, start, rounds, weights)


def local_only(task: FederatedTask, progress: bool = True) -> Evaluation:
    """Every client trains alone from the pretrained start; each is evaluated on its own rows.

    The federated run's steps are shared out evenly; the first clients make the remainder.
    """
    learner, start = Learner(task), initial_adapter(task)
    total, clients = task.rounds * task.clients_per_round * task.local_steps, {}
    for index, client in enumerate(
        tqdm(learner.clients, disable=not progress, desc="each client alone")
    ):
        steps = total // task.num_clients + (index < total % task.num_clients)
        write_adapter(learner.parameters, start)
        draw = generator(task.seed, BATCHES, 0, index)
        learner.steps(client.train, steps, draw, learner.optimizer())
        clients[client.name] = learner.evaluate(read_adapter(learner.parameters), index)
    return Evaluation.over(clients)


def evaluate(task: FederatedTask, models: Mapping[str, Weights]) -> dict[str, Evaluation]:
    """How good adapters are on the held-out rows of ``task``'s clients, whoever trained them.

    Losses of runs with unlike partitions don't compare: a question is set beside its own client's
    other answers, and each partition makes other clients. One task's clients judge all alike.
    """
    learner = Learner(task)
    return {name: _evaluate(learner, weights) for name, weights in models.items()}


def _evaluate(learner: Learner, weights: Weights) -> Evaluation:
    """The same evaluation that a server collects from its clients."""
    named = enumerate(client.name for client in learner.clients)
    return Evaluation.over({name: learner.evaluate(weights, index) for index, name in named})
