"""Data arrive by era: whether a federation keeps up, and what it forgets."""

from functools import lru_cache

from workbench.datasets import load
from workbench.federated.claims.claim import Claim
from workbench.federated.claims.setting import PLANTED, ROUNDS, common_loss, on_few, rounds_from
from workbench.federated.learner import Learner
from workbench.federated.partition import Row, generator

#: Pairs of each era to train on and held out, and words of a question and of its answer.
TRAIN, HELD_OUT, WORDS = 48, 32, 16


def era_rows(seed: int) -> list[Row]:
    """The beginning of a passage as a question, what follows as its answer; an era is a client."""
    draw, made = generator(seed, PLANTED, 3), []
    passages = load("sotu")
    for era in sorted({row["era"] for row in passages})[-ERAS:]:
        for split, count in (("train", TRAIN), ("test", HELD_OUT)):
            mine = [r for r in passages if r["era"] == era and r["split"] == split]
            mine = [r for r in mine if len(r["text"].split()) >= 2 * WORDS]
            for i in draw.permutation(len(mine))[:count]:
                words = mine[i]["text"].split()
                ask, answer = words[:WORDS], words[WORDS : 2 * WORDS]
                pair = {"question": " ".join(ask), "answer": " ".join(answer)}
                made.append(pair | {"client": era, "split": split})
    return made


#: The last eras of the addresses: those before the newest are there from the start.
ERAS = 3


@lru_cache(maxsize=16)
def histories(seed: int) -> dict[str, dict[str, float]]:
    """Losses on the newest era and on the old ones, for what is done when the newest arrives."""
    rows = era_rows(seed)
    task = on_few(rows, seed)
    learner = Learner(task)
    newest = max(row["client"] for row in rows)
    old = [i for i, c in enumerate(learner.clients) if c.name != newest]
    new = [i for i, c in enumerate(learner.clients) if c.name == newest]
    first, then = range(1, ROUNDS + 1), range(ROUNDS + 1, 2 * ROUNDS + 1)
    before, _ = rounds_from(learner, learner.start(), old, first)
    only_new, _ = rounds_from(learner, before, new, then)
    everyone, _ = rounds_from(learner, before, [*old, *new], then)
    held = {
        "new": [row for i in new for row in learner.clients[i].held_out],
        "old": [row for i in old for row in learner.clients[i].held_out],
    }
    ways = {"before": before, "new data only": only_new, "everyone": everyone}
    return {
        way: {which: common_loss(learner, weights, rows) for which, rows in held.items()}
        for way, weights in ways.items()
    }


def experiment(seed: int) -> dict[str, float]:
    """The newest era's held-out loss with two rounds more, and without."""
    found = histories(seed)
    return {
        "goes on": found["everyone"]["new"],
        "stays as it was": found["before"]["new"],
        "goes on with new data only": found["new data only"]["new"],
    }


CLAIM = Claim(
    id="new-era",
    sentence="A federation takes up data as they come, so its model keeps up with the times.",
    named=("S3",),
    metric="held-out loss on the newest era",
    unit="nat",
    arms=("goes on", "stays as it was"),
    beside=("goes on with new data only",),
    smallest=0.02,
    experiment=experiment,
    limits="Three eras of addresses as pairs for an encoder; the arms differ in steps, too: what "
    "goes on makes two rounds more.",
)
