"""What a model that was tuned on private text writes of it."""

from workbench.datasets import load
from workbench.federated.claims.catalogue.synthetic_text import copied
from workbench.federated.claims.claim import WRITER_SEEDS, Claim
from workbench.federated.claims.setting import PLANTED, tuned_on
from workbench.federated.generation import generate
from workbench.federated.learner import Learner
from workbench.federated.partition import BATCHES, generator
from workbench.federated.task import FederatedTask

#: Private texts and their words, words that the attacker knows, tokens written, steps of tuning.
TEXTS, WORDS, KNOWN, LENGTH, TUNING = 4, 20, 5, 16, 24


def experiment(seed: int) -> dict[str, float]:
    """Continue the beginnings of private texts, with the tuned model and the pretrained one."""
    passages = [row["text"] for row in load("sotu") if row["split"] == "train"]
    order = generator(seed, PLANTED, 5).permutation(len(passages))[: TEXTS + 1]
    *texts, other = [" ".join(passages[i].split()[:WORDS]) for i in order]
    rows = [{"client": "a", "text": text, "split": "train"} for text in texts]
    rows += [{"client": "a", "text": other, "split": "test"}]
    sizes = {"num_clients": 1, "clients_per_round": 1, "batch_size": TEXTS}
    task = FederatedTask(model="smollm2-135m", dataset=rows, seed=seed, **sizes)
    learner = Learner(task)
    draw = generator(seed, BATCHES)
    tuned = tuned_on(learner, learner.start(), learner.clients[0].train, TUNING, draw)
    del learner
    return {
        "tuned": leaked(task, texts, tuned),
        "pretrained": leaked(task, texts, None),
    }


def leaked(task: FederatedTask, texts: list[str], weights: dict | None) -> float:
    """The share of the runs of 3 words written that stand in the private text."""
    begun = [" ".join(text.split()[:KNOWN]) for text in texts]
    return copied(generate(task, begun, weights, max_new_tokens=LENGTH), texts)


CLAIM = Claim(
    id="synthetic-leak",
    sentence="What a tuned model writes can hold the private text that it was tuned on.",
    named=("S2", "S3", "ST"),
    metric="share of written 3-grams that stand in the private text",
    unit="share",
    arms=("tuned", "pretrained"),
    smallest=0.05,
    higher_is_better=True,
    experiment=experiment,
    limits="Four texts, tuned on them alone, 24 steps; the attacker knows how each begins.",
    seeds=WRITER_SEEDS,
)
