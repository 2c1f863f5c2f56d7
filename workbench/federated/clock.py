"""The simulated clock of a task with a `System`: when clients would answer, and who wouldn't.

Nothing here is measured, and nothing depends on anything but the task and the round's number.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp

import pandas as pd

from workbench.federated.lora import adapter_shapes
from workbench.federated.options.compression import Spec, Specs
from workbench.federated.options.privacy import CentralDP
from workbench.federated.partition import SYSTEM, absent, generator, sample
from workbench.federated.task import FederatedTask
from workbench.federated.traffic import client_traffic

#: Stands in the reason why a client is left out that has not even trained.
SIMULATED = "(simulated)"


@dataclass(frozen=True)
class SimulatedRound:
    """One round on the simulated clock.

    Parameters
    ----------
    asked : tuple of int
        Clients that the server asks, in the order of their partition.
    absent : tuple of int
        Clients that could not be asked.
    due_s : dict
        When the answer of each client that was asked would be there [simulated s].
    left_out : dict
        Clients whose update is not used, and why.
    seconds : float or None
        How long the server waits [simulated s]; ``None`` without a system.
    """

    asked: tuple[int, ...]
    absent: tuple[int, ...]
    due_s: dict[int, float]
    left_out: dict[int, str]
    seconds: float | None


def simulated_round(
    task: FederatedTask, number: int, specs: Specs, merged_updates: int = 0
) -> SimulatedRound:
    """Who answers in round ``number``, and when; without a system, all who are asked.

    Parameters
    ----------
    specs : dict
        Shapes of the model's arrays, which say how much travels.
    merged_updates : int
        As in `round_traffic`.
    """
    asked, system = tuple(sample(task, number)), task.system
    if system is None:
        return SimulatedRound(asked, (), {}, {}, None)
    due, left_out = {}, {}
    for client in asked:
        due[client] = client_seconds(task, client, specs, merged_updates)
        if _drops_out(task, number, client):
            left_out[client] = f"dropped out {SIMULATED}"
        elif system.deadline_s is not None and due[client] > system.deadline_s:
            left_out[client] = (
                f"late {SIMULATED}: due after {due[client]:.4g} s, the deadline is "
                f"{system.deadline_s:g} s"
            )
    last = max(due.values(), default=0.0)
    seconds = system.deadline_s if left_out and system.deadline_s is not None else last
    return SimulatedRound(asked, tuple(absent(task, number)), due, left_out, seconds)


def may_have_sent(trained: Iterable[str], failed: Mapping[str, str]) -> set[str]:
    """Names of a round's clients of which an update may have left the client, used or not."""
    return {*trained, *(name for name, why in failed.items() if SIMULATED not in why)}


def fewest(task: FederatedTask, asked: Sequence[int]) -> int:
    """Valid updates that a round needs: ``min_clients``, or all of a smaller Poisson sample."""
    poisson = isinstance(task.privacy, CentralDP) and task.privacy.sampling == "poisson"
    return min(task.min_clients, len(asked)) if poisson else task.min_clients


def speed(task: FederatedTask, client: int) -> float:
    """A client's speed in all rounds: log-normal, 1 is the median."""
    return exp(task.system.speed_sigma * generator(task.seed, SYSTEM, 0, client).standard_normal())


def client_seconds(
    task: FederatedTask, client: int, specs: Specs, merged_updates: int = 0
) -> float:
    """``bytes down / downlink + steps step_s / speed + bytes up / uplink`` [simulated s]."""
    system, traffic = task.system, client_traffic(task, specs, client, merged_updates)
    steps = task.local_steps * task.method.passes
    return (
        traffic.downlink_bytes / system.downlink_bytes_per_s
        + steps * system.seconds_per_step(task) / speed(task, client)
        + traffic.uplink_bytes / system.uplink_bytes_per_s
    )


def _drops_out(task: FederatedTask, number: int, client: int) -> bool:
    draw = generator(task.seed, SYSTEM, number, client)
    draw.random()  # the first number says whether the client is there
    return draw.random() < task.system.dropout


def simulated_clock(task: FederatedTask) -> pd.DataFrame:
    """Who would answer in each round of a task with a `System`, and when; nothing is trained.

    One row for each round and client: its ``speed``, its ``outcome`` (``"used"``, ``"late"``,
    ``"dropped out"``, ``"not available"``, ``"not asked"``), ``due_s``, when its answer would be
    there, and ``round_s``, how long the server waits. All seconds are simulated. Updates that are
    refused for what they hold are taken for used.

    Raises
    ------
    ValueError
        If the task has no system.

    Examples
    --------
    >>> from workbench.federated import System
    >>> task = FederatedTask(num_clients=4, clients_per_round=4, rounds=1, system=System())
    >>> simulated_clock(task)["outcome"].tolist()
    ['used', 'used', 'used', 'used']
    """
    if task.system is None:
        raise ValueError("the task has no system=..., so it has no simulated clock: give it one.")
    specs = {name: Spec(shape) for name, shape in adapter_shapes(task).items()}
    rows, merged = [], 0
    for number in range(1, task.rounds + 1):
        done = simulated_round(task, number, specs, merged)
        merged += len(done.due_s) - len(done.left_out)
        for client in range(task.num_clients):
            row = {"round": number, "client": client, "speed": speed(task, client)}
            row |= {"outcome": _outcome(done, client), "due_s": done.due_s.get(client)}
            rows.append(row | {"round_s": done.seconds})
    return pd.DataFrame(rows)


def _outcome(done: SimulatedRound, client: int) -> str:
    if client in done.left_out:
        return done.left_out[client].split(" (")[0]
    if client in done.due_s:
        return "used"
    return "not available" if client in done.absent else "not asked"
