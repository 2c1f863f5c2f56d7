"""Who gets more out of joining, small owners or a large one, and at what cost."""

from statistics import fmean

from workbench.federated.claims.claim import Claim
from workbench.federated.claims.setting import TOPICS, alone, run, unequal


def experiment(seed: int) -> dict[str, float]:
    """Each client's loss alone minus its loss together, by size; and what a client pays."""
    task = unequal(seed)
    history, single = run(task), alone(task).clients
    ends = history.rounds[-1].evaluation.clients
    gains = {topic: single[topic]["loss"] - ends[topic]["loss"] for topic in TOPICS}
    sent = sum(each.uplink_bytes + each.downlink_bytes for each in history.rounds)
    return {
        "small owners": fmean(gains[topic] for topic in TOPICS[1:]),
        "large owner": gains[TOPICS[0]],
        "megabytes a client": sent / task.num_clients / 1e6,
        "steps a client": task.rounds * task.local_steps,
    }


CLAIM = Claim(
    id="incentive",
    sentence="Owners of little data gain more by joining than one of much, at the same cost.",
    named=("ST", "T10"),
    metric="loss alone minus loss together",
    unit="nat",
    arms=("small owners", "large owner"),
    beside=("megabytes a client", "steps a client"),
    smallest=0.02,
    higher_is_better=True,
    experiment=experiment,
    limits="The large owner's topic is one topic, so size and topic are mixed; nobody is paid.",
)
