"""Exercises on deployments: answers in a run, a round with dead nodes, and its bytes."""

import torch

from workbench.exercises.checking import Case, Exercise, by_cases


def _runs(rng):
    from workbench.federated import FederatedTask
    from workbench.federated.progress import messages

    cases = []
    for clients, some in ((2, 2), (5, 3), (8, 1), (12, 7)):
        rounds = rng.randint(2, 9)
        task = FederatedTask(num_clients=clients, clients_per_round=some, rounds=rounds)
        expected = clients + messages(task, rounds)
        where = f"{clients} clients, {some} train in a round, {rounds} rounds"
        cases.append(Case((clients, some, rounds), expected, where))
    return cases


check_answers = Exercise(
    "Write f(clients, per_round, rounds): how many answers the server gets in a whole run. Each "
    "client first says who it is; the pretrained start and the model after each round are "
    "evaluated by all clients; in a round, per_round clients train.",
    (
        "Three kinds of answers: names, evaluations, trainings. Count each, then add.",
        "The start is evaluated, too: that is one evaluation more than there are rounds.",
    ),
    by_cases(
        _runs,
        {
            "Two things are forgotten easily: at first every client says who it is, and the "
            "pretrained start is evaluated, too.": lambda clients, some, rounds: (
                clients + rounds * (some + clients)
            ),
            "Only per_round clients train in a round.": lambda clients, some, rounds: (
                clients + rounds * clients + (rounds + 1) * clients
            ),
        },
    ),
)


def _rounds(rng):
    from workbench.federated.methods import base

    cases = []
    for clients in (2, 3, 5):
        draw = torch.Generator().manual_seed(rng.randrange(10**6))
        shape = (rng.randint(2, 4), rng.randint(2, 4))
        updates = [torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(clients)]
        rows = rng.sample(range(5, 200), clients)
        dead = rng.sample(range(clients), max(1, clients // 2))
        came = [None if i in dead else update for i, update in enumerate(updates)]
        valid = [
            base.Update(i, {"w": update.numpy()}, rows[i], 0.0)
            for i, update in enumerate(came)
            if update is not None
        ]
        expected = torch.from_numpy(base.mean(valid, by_rows=True)["w"].copy())
        where = f"{clients} clients with {rows} rows, dead: {sorted(dead)}"
        cases.append(Case((came, rows), expected, where))
    return cases


def _came(updates, rows):
    return [(n, u) for n, u in zip(rows, updates, strict=True) if u is not None]


check_survivors_mean = Exercise(
    "Write f(updates, rows): what FedAvg makes of a round in which some nodes died. updates has a "
    "tensor for each client asked, and None for one that died; rows are their training rows.",
    (
        "The dead are left out of both sums: of the updates and of the rows.",
        "If the one client that is left sends u, the result is u, whatever its share was before.",
    ),
    by_cases(
        _rounds,
        {
            "The rows of the dead still count there, so the model shrinks.": lambda updates, rows: (
                sum(n * u for n, u in _came(updates, rows)) / sum(rows)
            ),
            "Every client that answered counts the same there.": lambda updates, rows: (
                sum(u for _, u in _came(updates, rows)) / len(_came(updates, rows))
            ),
            "That is a sum, not a mean.": lambda updates, rows: sum(
                n * u for n, u in _came(updates, rows)
            ),
        },
    ),
)


def _bytes(rng):
    from workbench.federated import FederatedTask, round_traffic

    cases = []
    for asked, dead in ((2, 1), (4, 1), (6, 3)):
        task = FederatedTask(
            num_clients=asked, clients_per_round=asked, lora_rank=rng.choice((2, 4, 8))
        )
        one = round_traffic(task, clients=[0])
        whole = round_traffic(task)
        left = round_traffic(task, clients=range(asked - dead))
        given = (one.downlink_bytes, one.uplink_bytes, asked, dead)
        where = f"{asked} clients asked, {dead} die before they answer, rank {task.lora_rank}"
        cases.append(Case(given, whole.downlink_bytes + left.uplink_bytes, where))
    return cases


check_round_bytes = Exercise(
    "Write f(down, up, asked, dead): the bytes of training in a round, both ways. The server sends "
    "`down` bytes to each client asked; a client that has trained sends `up` bytes; some die "
    "before they answer.",
    (
        "Who gets something, and who sends something back?",
        "A message to a client that dies was sent all the same. Its answer never came.",
    ),
    by_cases(
        _bytes,
        {
            "What was sent to the dead counts, too.": lambda down, up, asked, dead: (
                (asked - dead) * (down + up)
            ),
            "The dead send nothing back.": lambda down, up, asked, dead: asked * (down + up),
            "The ways are exchanged: all are asked.": lambda down, up, asked, dead: (
                asked * up + (asked - dead) * down
            ),
        },
    ),
)
