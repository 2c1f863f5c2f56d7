"""What a model remembers of pairs that nothing but training links."""

from functools import lru_cache

from workbench.federated.claims.claim import Claim
from workbench.federated.claims.setting import (
    TOPICS,
    common_loss,
    common_rows,
    few_rows,
    on_few,
    planted,
    random_pairs,
    run,
)
from workbench.federated.leakage import membership
from workbench.federated.learner import Learner
from workbench.federated.option import Option
from workbench.federated.task import FederatedTask

#: Canaries that each client trains on, and how often each stands in its data.
CANARIES, TIMES = 4, 4


def canary_task(
    seed: int, times: int, privacy: Option | None = None
) -> tuple[FederatedTask, list, list]:
    """A federation whose clients hold canaries; the canaries; and as many that nobody holds."""
    rows = few_rows(seed)
    pairs = random_pairs(rows, 2 * CANARIES * len(TOPICS), seed)
    half = len(pairs) // 2
    for i, topic in enumerate(TOPICS):
        rows = planted(rows, topic, pairs[i * CANARIES : (i + 1) * CANARIES], times)
    return on_few(rows, seed, privacy=privacy), pairs[:half], pairs[half:]


@lru_cache(maxsize=32)
def remembered(seed: int, times: int, privacy: Option | None = None) -> dict[str, float]:
    """How well canaries are told from others by the fall of their loss; and the common loss."""
    task, members, others = canary_task(seed, times, privacy)
    history, learner = run(task), Learner(task)
    found = membership(learner, learner.start(), history.weights, members, others)
    spent = history.rounds[-1].epsilon
    return {
        "auc": found.auc,
        "loss": common_loss(learner, history.weights, common_rows(seed)),
        "epsilon": 0.0 if spent is None else spent,
    }


def experiment(seed: int) -> dict[str, float]:
    """Each canary once, against each several times, in as many steps."""
    once, often = remembered(seed, 1), remembered(seed, TIMES)
    return {
        "duplicates removed": once["auc"],
        "repeated": often["auc"],
        "loss, duplicates removed": once["loss"],
        "loss, repeated": often["loss"],
    }


CLAIM = Claim(
    id="memorised",
    sentence="Tuned models memorise what the data repeat; removing duplicates mitigates it.",
    named=("ST", "P"),
    metric="AUC of telling trained canaries from others",
    unit="AUC",
    arms=("duplicates removed", "repeated"),
    beside=("loss, duplicates removed", "loss, repeated"),
    smallest=0.05,
    experiment=experiment,
    limits="Random words as canaries, 16 of them in 4 copies; the attacker holds the model.",
)
