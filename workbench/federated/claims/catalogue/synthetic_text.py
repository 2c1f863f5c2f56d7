"""Questions written by SmolLM2 for an owner that has few of its own."""

from dataclasses import replace

from workbench.federated.claims.claim import WRITER_SEEDS, Claim
from workbench.federated.claims.setting import STEPS, common_loss, few_rows, on_few, tuned_on
from workbench.federated.generation import generate
from workbench.federated.learner import Learner
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


def copied(made: list[str], private: list[str], size: int = 3) -> float:
    """The share of the runs of ``size`` words in what was written that stand in private texts."""
    known = {gram for text in private for gram in grams(text, size)}
    written = [gram for text in made for gram in grams(text, size)]
    return sum(gram in known for gram in written) / max(1, len(written))


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
        draw = generator(seed, BATCHES, 997)
        tuned = tuned_on(learner, learner.start(), mine, 2 * STEPS, draw)
        found[name] = common_loss(learner, tuned, learner.clients[0].held_out)
    said, asked = ([row["question"] for row in each] for each in (made, own))
    return found | {"3-grams copied": copied(said, asked), "written": len(made)}


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
