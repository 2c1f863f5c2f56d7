"""Who holds which rows: split, natural sources, and how sources are dealt to clients."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from workbench.datasets import load
from workbench.federated.options.partition import Natural
from workbench.federated.options.privacy import CentralDP
from workbench.federated.task import FederatedTask
from workbench.federated.task_checks import text_columns

Row = dict[str, Any]
#: What a seeded generator is for; two purposes never share their random numbers.
SPLIT, DEAL, ADAPTER, SAMPLE, BATCHES, EVALUATION, NOISE, ATTACK, ROUNDING, SYSTEM = range(10)
#: Of own rows without a split: the share of the groups that is held out.
HELD_OUT = {"test": 0.2, "validation": 0.1}

#: How often shares are drawn until every client has enough rows.
DRAWS = 50


@dataclass(frozen=True)
class Client:
    """One client: its name, its sources, and its rows."""

    name: str
    sources: tuple[str, ...]
    train: tuple[Row, ...]
    held_out: tuple[Row, ...]


def generator(*key: int) -> np.random.Generator:
    """Random numbers that depend on nothing but ``key``: seed, purpose, round, client."""
    return np.random.default_rng(np.random.SeedSequence(key))


def sample(task: FederatedTask, number: int) -> list[int]:
    """The clients that are asked in a round: drawn from the seed among those that are there."""
    draw, away = generator(task.seed, SAMPLE, number), set(absent(task, number))
    there = [client for client in range(task.num_clients) if client not in away]
    if isinstance(task.privacy, CentralDP) and task.privacy.sampling == "poisson":
        drawn = draw.random(task.num_clients) < task.clients_per_round / task.num_clients
        return [client for client in there if drawn[client]]
    count = min(task.clients_per_round, len(there))
    return sorted(draw.choice(there, count, replace=False).tolist())


def absent(task: FederatedTask, number: int) -> list[int]:
    """The clients that can't be asked in a round, by ``availability`` of the task's system."""
    if task.system is None or task.system.availability == 1:
        return []
    chance = {c: generator(task.seed, SYSTEM, number, c).random() for c in range(task.num_clients)}
    return [client for client, drawn in chance.items() if drawn >= task.system.availability]


def clients_of(task: FederatedTask, rows: Sequence[Row] | None = None) -> list[Client]:
    """The clients of a task, in the order of their partition id.

    Each natural source (a topic, a president, a value of your column ``client``) goes whole to
    one client: the largest first, each to the client that has the fewest rows so far, ties in an
    order drawn from the seed. ``task.partition`` may share out rows instead; the split stays as it
    is, so what is held out for one client trains no other. ``rows`` may be the task's own, loaded
    before, to save the time.

    Raises
    ------
    ValueError
        If there are more clients than sources that stay whole, or a client has too few rows to
        learn from.
    """
    rows = _rows(task) if rows is None else rows
    sources: dict[str, list[Row]] = {}
    for row in rows:
        sources.setdefault(str(row["client"]), []).append(row)
    if task.partition is None or isinstance(task.partition, Natural):
        clients = _whole_sources(task, sources)
    else:
        clients = _shared_rows(task, sources)
    _check_sizes(task, clients)
    return _named_apart(clients)


def _named_apart(clients: Sequence[Client]) -> list[Client]:
    """Clients of one name get numbers: all that is told of a client is told by its name."""
    found, names = [], {client.name for client in clients}
    taken: set[str] = set()
    for client in clients:
        name, number = client.name, 2
        while name in taken or (name in names and name != client.name):
            name, number = f"{client.name} ({number})", number + 1
        taken.add(name)
        found.append(replace(client, name=name))
    return found


def _whole_sources(task: FederatedTask, sources: dict[str, list[Row]]) -> list[Client]:
    if task.num_clients > len(sources):
        raise ValueError(
            f"num_clients={task.num_clients}, but the data have {len(sources)} natural sources and "
            f"a source is not cut in two. Take num_clients={len(sources)} or fewer, or a partition "
            "that cuts them."
        )
    hands = _deal(task, sources)
    return [_client(task, " + ".join(names), names, sources) for names in hands]


def _shared_rows(task: FederatedTask, sources: dict[str, list[Row]]) -> list[Client]:
    """Rows one by one; dealt again, by other draws, while a client has too few to train."""
    least = len(text_columns(task))
    if task.partition.pooled:
        sources = {"mixed": [row for rows in sources.values() for row in rows]}
    if (count := sum(map(len, sources.values()))) < task.num_clients:
        raise ValueError(
            f"num_clients={task.num_clients}, but the data have {count} rows, and a row is not cut "
            f"in two. Take num_clients={count // (2 * least)} or fewer."
        )
    for attempt in range(DRAWS):
        hands = _dealt(task, sources, generator(task.seed, DEAL, attempt))
        clients = [_client(task, f"client {i}", list(hand), hand) for i, hand in enumerate(hands)]
        if all(len(client.train) >= least for client in clients):
            break
    return clients


def _dealt(
    task: FederatedTask, sources: dict[str, list[Row]], draw: np.random.Generator
) -> list[dict[str, list[Row]]]:
    """For each client, source -> its rows, as flwr-datasets' partitioner deals them."""
    from datasets import Dataset

    rows = [(name, row) for name, rows in sources.items() for row in _spread(rows, draw)]
    partitioner = task.partition.partitioner(task.num_clients, int(draw.integers(2**32)))
    columns = {"source": [name for name, _ in rows], "place": range(len(rows))}
    partitioner.dataset = Dataset.from_dict(columns).with_format("arrow")  # read as one, not by row
    hands: list[dict[str, list[Row]]] = [{} for _ in range(task.num_clients)]
    for client, hand in enumerate(hands):
        for place in partitioner.load_partition(client)["place"][:].to_pylist():
            name, row = rows[place]
            hand.setdefault(name, []).append(row)
    return hands


def _spread(rows: Sequence[Row], draw: np.random.Generator) -> list[Row]:
    """Rows in a drawn order, each split spread evenly: a piece of them has its part of each."""
    placed: list[tuple[float, Row]] = []
    for split in sorted({row["split"] for row in rows}):
        mine = [row for row in rows if row["split"] == split]
        order = draw.permutation(len(mine)).tolist()
        placed += [((place + 0.5) / len(mine), mine[i]) for place, i in enumerate(order)]
    return [row for _, row in sorted(placed, key=lambda each: each[0])]


def _rows(task: FederatedTask) -> list[Row]:
    """The task's rows with a column split; own rows without one lose duplicates first."""
    rows = load(task.dataset) if isinstance(task.dataset, str) else list(task.dataset)
    if all("split" in row for row in rows):
        return rows
    if any("split" in row for row in rows):
        raise ValueError("some rows of dataset have a 'split' and some have not: give all or none.")
    columns = text_columns(task)
    columns += ("label",) if columns == ("features",) else ()
    distinct = {tuple(_normal(row[column]) for column in columns): row for row in reversed(rows)}
    kept = list(distinct.values())[::-1]
    splits = _splits(task, kept)
    return [row | {"split": splits[_group(row)]} for row in kept]


def _splits(task: FederatedTask, rows: Sequence[Row]) -> dict[str, str]:
    """Which split each group is in: drawn client by client, and the same for all clients."""
    draw, splits = generator(task.seed, SPLIT), {}
    for client in sorted({str(row["client"]) for row in rows}):
        groups = sorted({_group(row) for row in rows if str(row["client"]) == client} - set(splits))
        order, first = [groups[i] for i in draw.permutation(len(groups))], 0
        for split, share in HELD_OUT.items():
            last = first + round(share * len(order))
            splits |= dict.fromkeys(order[first:last], split)
            first = last
        splits |= dict.fromkeys(order[first:], "train")
    return splits


def _group(row: Row) -> str:
    """What must not be in training and held out at once: an address, a question, or the text."""
    for column in ("group", "address", "question", "text", "features"):
        if row.get(column) is not None:
            return _normal(row[column])
    raise ValueError(
        f"a row has none of 'group', 'address', 'question', 'text', 'features': {sorted(row)}"
    )


def _normal(text: Any) -> str:
    return " ".join(str(text).split()).casefold()


def _deal(task: FederatedTask, sources: dict[str, list[Row]]) -> list[list[str]]:
    """Names of the sources that each client gets."""
    order = generator(task.seed, DEAL).permutation(task.num_clients).tolist()
    hands: list[list[str]] = [[] for _ in order]
    fewest = [(0, place) for place in range(len(order))]  # a heap: rows so far, place in the order
    for name in sorted(sources, key=lambda name: (-len(sources[name]), name)):
        rows, place = fewest[0]
        hands[order[place]].append(name)
        heapq.heapreplace(fewest, (rows + len(sources[name]), place))
    return hands


def _client(
    task: FederatedTask, name: str, names: list[str], sources: dict[str, list[Row]]
) -> Client:
    rows = [row for source in names for row in sources[source]]
    train = tuple(row for row in rows if row["split"] == "train")
    held_out = tuple(row for row in rows if row["split"] == task.eval_split)
    return Client(name, tuple(names), train, held_out)


def _check_sizes(task: FederatedTask, clients: Sequence[Client]) -> None:
    least = len(text_columns(task))  # a question needs a second answer beside it, a text nothing
    for client in clients:
        if len(client.train) < least:
            drawn = hasattr(task.partition, "alpha")
            way = ", or another alpha" if drawn else ": small sources share one"
            raise ValueError(
                f"client {client.name!r} has {len(client.train)} rows to train on and needs "
                f"{least}. Take fewer than {task.num_clients} clients{way}."
            )
    for number in getattr(task.attack, "clients", ()):
        client = clients[number]
        try:
            task.attack.rows(client.train, number, task)
        except ValueError as error:
            raise ValueError(f"client {client.name!r} can't attack: {error}") from None
    if not any(client.held_out for client in clients):
        raise ValueError(
            f"no client has a row in the split {task.eval_split!r}: give more rows that differ "
            "(equal ones stay in one split), or a column 'split' with 'train' and 'test'."
        )
