"""Questions written by SmolLM2 for an owner that has few of its own."""

from dataclasses import replace

from workbench.federated.claims.claim import WRITER_SEEDS, Claim
from workbench.federated.claims.setting import STEPS, common_loss, few_rows, on_few
from workbench.federated.generation import generate
from workbench.federated.learner import Learner
from workbench.federated.lora import read_adapter, write_adapter
from workbench.federated.partition import BATCHES, Row, generator

#: Pairs that the small owner has, and tokens that are written for each.
OWN, LENGTH = 6, 16
ASK = 'Ask the same in other words, in one short question: "{question}"'


def written(rows: list[Row], seed: int) -> list[Row]:
    """For each pair another question with the same answer, by the pretrained SmolLM2."""
    task = replace(on_few(rows, seed), model="smollm2-135m")
    prompts = [ASK.format(**row) for row in rows]
    said = generate(task, prompts, max_new_tokens=LENGTH)
    return [row | {"question": text} for row, text in zip(rows, said, strict=True) if text]


def copied(made: list[Row], rows: list[Row], size: int = 3) -> float:
    """The share of runs of words in what was written that stand in the private questions."""
    mine, theirs = (
        [gram for row in each for gram in grams(row["question"], size)] for each in (made, rows)
    )
    return sum(gram in set(theirs) for gram in mine) / max(1, len(mine))


def grams(text: str, size: int) -> list[tuple[str, ...]]:
    """Runs of ``size`` words, in small letters.

    Examples
    --------
    >>> grams("What is this", 2)
    [('what', 'is'), ('is', 'this')]
    """
    words = text.lower().split()
    return [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]


def experiment(seed: int) -> dict[str, float]:
    """The same steps on the owner's own pairs, and on these with what was written."""
    rows = few_rows(seed, OWN, ("ai",))
    own = [row for row in rows if row["split"] == "train"]
    made = written(own, seed)
    learner, found = Learner(on_few(rows, seed)), {}
    for name, mine in {"with synthetic": own + made, "own pairs only": own}.items():
        write_adapter(learner.parameters, learner.start())
        learner.steps(mine, 2 * STEPS, generator(seed, BATCHES, 997), learner.optimizer())
        found[name] = common_loss(
            learner, read_adapter(learner.parameters), learner.clients[0].held_out
        )
    return found | {"3-grams copied": copied(made, own), "written": len(made)}


CLAIM = Claim(
    id="synthetic-text",
    sentence="Text that a foundation model writes helps an owner who has little of its own.",
    named=("S2", "S3"),
    metric="held-out loss on the owner's topic",
    unit="nat",
    arms=("with synthetic", "own pairs only"),
    beside=("3-grams copied", "written"),
    smallest=0.02,
    experiment=experiment,
    limits="One small owner; six questions in other words, by a model of 135 million weights.",
    seeds=WRITER_SEEDS,
)
