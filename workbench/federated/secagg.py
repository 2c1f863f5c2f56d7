"""Secure aggregation of a round, or of any changes: the server learns their mean and no one's."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from workbench.federated.in_process import ROUND_TIMEOUT_S, InProcessGrid, task_identity
from workbench.federated.masking import Maskable, masked_reply, stage_of
from workbench.federated.methods.base import Arrays, Update
from workbench.federated.options.secure_aggregation import SecAggPlus
from workbench.federated.partition import ROUNDING, clients_of, generator
from workbench.federated.secagg_protocol import COLLECT, STAGES, SecureSum, Watched, run_protocol
from workbench.federated.task import FederatedTask
from workbench.federated.traffic import (
    EXAMPLES,
    MAX_EXAMPLES,
    METRICS,
    TRAIN_LOSS,
    packer,
    reply,
    request,
    specs_of,
)
from workbench.federated.updates import weight_range


def secure_mean(
    changes: Sequence[Arrays],
    option: SecAggPlus | None = None,
    weights: Sequence[int] | None = None,
    lost: Mapping[int, str] | Iterable[int] = (),
    seed: int = 0,
) -> SecureSum:
    """The mean of changes by the protocol, each known to its own client only.

    The clients are those of an in-process Grid. What the server can see is in the result: the
    masked changes, and the mean.

    Parameters
    ----------
    changes : sequence of dict
        Each client's change, name -> array.
    option : SecAggPlus or None
        ``None``: its defaults.
    weights : sequence of int or None
        Each client's weight, such as its training rows; ``None``: all the same.
    lost : dict or iterable
        Clients that don't answer from a stage on: a dict client -> one of `STAGES`, or clients
        that have shared keys and then send no masked change.
    seed : int
        Of the rounding to levels.

    Raises
    ------
    ValueError
        If the option can't be for so many clients, changes are not alike or not finite, or a
        weight, a stage or a lost client is none.
    RuntimeError
        If fewer clients are left than the threshold asks for.

    Examples
    --------
    >>> import numpy as np
    >>> done = secure_mean([{"w": np.full(2, x)} for x in (0.1, 0.2, 0.6)])
    >>> bool(np.abs(done.mean["w"] - 0.3).max() < SecAggPlus().step)
    True
    """
    option = option or SecAggPlus()
    weights = [1] * len(changes) if weights is None else list(weights)
    option.check_clients(len(changes))
    stages = dict(lost) if isinstance(lost, Mapping) else dict.fromkeys(lost, COLLECT)
    if type(seed) is not int or seed < 0:
        raise ValueError(f"seed={seed!r}; it is a whole number of at least 0.")
    _check_changes(changes, weights, stages)
    grid = InProcessGrid(_app(changes, option, weights, stages, seed), len(changes), {})
    nodes = {client + 1: client for client in range(len(changes))}
    contents = {node: RecordDict() for node in nodes}
    specs = specs_of(dict(sorted(changes[0].items())))
    with task_identity():
        watched = Watched(grid, contents, nodes, specs, ROUND_TIMEOUT_S)
        done = run_protocol(watched, option, (min(weights), max(weights)))
    names = {client: f"client {client}" for client in nodes.values()}
    return _ended(done, option, len(changes), names, "secure_mean")


def _check_changes(
    changes: Sequence[Arrays], weights: Sequence[int], stages: Mapping[int, str]
) -> None:
    shapes = [{name: a.shape for name, a in change.items()} for change in changes]
    if not shapes[0]:
        raise ValueError("the changes hold no arrays, so there is nothing to sum")
    for client, change in enumerate(changes):
        if shapes[client] != shapes[0]:
            raise ValueError(f"client {client}'s change has other names or shapes than client 0's")
        if not all(np.isfinite(array).all() for array in change.values()):
            raise ValueError(f"client {client}'s change has values that are not finite")
    whole = all(type(w) is int and 1 <= w <= MAX_EXAMPLES for w in weights)
    if len(weights) != len(changes) or not whole:
        raise ValueError(
            f"weights={weights}; give each of {len(changes)} clients a whole number from 1 to "
            f"{MAX_EXAMPLES:,}"
        )
    for client, stage in stages.items():
        if client not in range(len(changes)) or stage not in STAGES:
            raise ValueError(
                f"lost={dict(stages)}: clients count from 0 to {len(changes) - 1}, and a stage is "
                f"one of {', '.join(STAGES)}"
            )


def _app(
    changes: Sequence[Arrays],
    option: SecAggPlus,
    weights: Sequence[int],
    stages: Mapping[int, str],
    seed: int,
) -> ClientApp:
    """Clients that hand in what they already have, until they are lost."""
    app = ClientApp()

    @app.train()
    def answer(message: Message, context: Context) -> Message:
        client = context.node_id - 1
        left = stages.get(client)
        if left and STAGES.index(left) <= STAGES.index(stage_of(message)):
            raise ConnectionError("lost")

        def train(message: Message, context: Context) -> Maskable:
            draw, weight = generator(seed, ROUNDING, 1, client), weights[client]
            return Maskable(reply({}, 0.0, weight), changes[client], weight, draw)

        return masked_reply(message, context, train, option)

    return app


def secure_round(
    grid: Grid,
    task: FederatedTask,
    nodes: Mapping[int, int],
    names: Mapping[int, str],
    sent: Mapping[int, Arrays],
    number: int,
    timeout_s: float,
) -> tuple[SecureSum, Arrays, list[Update]]:
    """Let the clients of ``sent`` train, and sum their masked changes.

    Parameters
    ----------
    nodes, names : dict
        Client -> its node, and what to call it.
    sent : dict
        Client -> what it gets.

    Returns
    -------
    done : SecureSum
        What the server saw.
    joined : dict
        The reference plus the mean of the changes: what the plain mean would be, but for rounding.
    updates : list of Update
        Rows and loss of each client that is in the mean, without arrays.

    Raises
    ------
    RuntimeError
        If fewer clients are left than the threshold asks for.
    """
    packed, option = packer(), task.secure_aggregation
    first = min(sent)
    reference = dict(sorted(task.method.reference(sent[first], first).items()))
    contents = {nodes[c]: request(packed(arrays), number) for c, arrays in sent.items()}
    clients = {nodes[client]: client for client in sent}
    watched = Watched(grid, contents, clients, specs_of(reference), timeout_s)
    done = run_protocol(watched, option, weight_range(task, clients_of(task)), number)
    done = _ended(done, option, len(sent), names, f"round {number}")
    joined = {n: (a + done.mean[n]).astype(a.dtype) for n, a in reference.items()}
    metrics = {client: done.replies[client][METRICS] for client in sorted(done.replies)}
    updates = [
        Update(client, {}, said[EXAMPLES], said[TRAIN_LOSS]) for client, said in metrics.items()
    ]
    return done, joined, updates


def _ended(
    done: SecureSum, option: SecAggPlus, clients: int, names: Mapping[int, str], where: str
) -> SecureSum:
    """The sum, if there is one."""
    if not done.mean:
        few = (
            f"of {clients} clients {option.needed(clients)} must answer to the end "
            f"(threshold={option.threshold:g})"
        )
        raise RuntimeError(
            f"{where}: secure aggregation can't take the masks away: {done.broken or few}. "
            + "; ".join(f"{names[c]}: {why}" for c, why in sorted(done.failed.items()))
        )
    return done
