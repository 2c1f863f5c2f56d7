"""One client wants its data out: replay the saved updates without it, or train again."""

from workbench.federated.claims.catalogue.memorised import CANARIES, TIMES, canary_task
from workbench.federated.claims.claim import Claim
from workbench.federated.claims.setting import (
    ROUNDS,
    common_loss,
    common_rows,
    rounds_from,
    shifted,
)
from workbench.federated.leakage import row_losses
from workbench.federated.learner import Learner
from workbench.federated.lora import Weights
from workbench.federated.methods.base import Update, mean

#: The client that leaves.
LEAVER = 0


def replayed(start: Weights, rounds: list[list[Update]], without: int) -> Weights:
    """Add up each round's mean change of the other clients, as it was computed then."""
    server, changes = start, []
    for updates in rounds:
        others = mean([u for u in updates if u.client != without], by_rows=True)
        changes.append({name: others[name] - server[name] for name in server})
        server = mean(updates, by_rows=True)
    return shifted(start, changes)


def experiment(seed: int) -> dict[str, float]:
    """How far the loss of the leaver's canaries is from that of a model that never saw them."""
    task, members, others = canary_task(seed, TIMES)
    learner, numbers = Learner(task), range(1, ROUNDS + 1)
    start, clients = learner.start(), range(task.num_clients)
    kept, rounds = rounds_from(learner, start, clients, numbers)
    retrained, _ = rounds_from(learner, start, set(clients) - {LEAVER}, numbers)
    again = replayed(start, rounds, LEAVER)
    held = {row["question"] for row in learner.clients[LEAVER].train}
    asked = [*(row for row in members if row["question"] in held), *others]

    def canary_loss(weights: Weights) -> float:
        return float(row_losses(learner, weights, asked)[:CANARIES].mean())

    true = canary_loss(retrained)
    return {
        "replayed": abs(canary_loss(again) - true),
        "kept": abs(canary_loss(kept) - true),
        "common loss, replayed": common_loss(learner, again, common_rows(seed)),
        "common loss, retrained": common_loss(learner, retrained, common_rows(seed)),
        "steps to retrain": ROUNDS * task.local_steps * (task.num_clients - 1),
    }


CLAIM = Claim(
    id="unlearning",
    sentence="A client can be unlearnt from saved updates, without training again.",
    named=("T10",),
    metric="distance of the leaver's canary loss from a retrained model's",
    unit="nat",
    arms=("replayed", "kept"),
    beside=("common loss, replayed", "common loss, retrained", "steps to retrain"),
    smallest=0.05,
    experiment=experiment,
    limits="Two rounds: later updates of the others carry little of the leaver yet.",
)
