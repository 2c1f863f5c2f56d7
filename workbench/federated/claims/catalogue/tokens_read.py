"""The words of a text, read from the update that a client made of it."""

from collections import Counter

import numpy as np

from workbench.datasets import load
from workbench.federated.claims.claim import WRITER_SEEDS, Claim
from workbench.federated.claims.setting import PLANTED
from workbench.federated.leakage import precision, recall, tokens_in_update
from workbench.federated.learner import Learner
from workbench.federated.partition import generator
from workbench.federated.task import FederatedTask

#: Words of the text, and the noise that hides them, relative to the update's own spread.
WORDS, NOISE = 8, 0.1


def experiment(seed: int) -> dict[str, float]:
    """One SGD step on one short text, rank 16; against guessing the corpus's commonest tokens."""
    passages = [row["text"] for row in load("sotu") if row["split"] == "train"]
    draw = generator(seed, PLANTED, 4)
    text, *public = [passages[i] for i in draw.permutation(len(passages))[:40]]
    rows = [{"client": "a", "text": " ".join(text.split()[:WORDS]), "split": "train"}] * 2
    rows += [{"client": "a", "text": public[0], "split": "test"}]
    sizes = {"num_clients": 1, "clients_per_round": 1, "local_steps": 1, "batch_size": 1}
    task = FederatedTask(
        model="smollm2-135m", dataset=rows, optimizer="sgd", lora_rank=16, seed=seed, **sizes
    )
    learner = Learner(task)
    true = learner.tokenizer(rows[0]["text"])["input_ids"]
    start = learner.start()
    update, _ = learner.train(start, 0, 1)
    noisy = {
        n: a + NOISE * np.std(a - start[n]) * draw.normal(size=a.shape) for n, a in update.items()
    }
    found = tokens_in_update(learner, start, update).tokens
    counts = Counter(token for each in public for token in learner.tokenizer(each)["input_ids"])
    common = [token for token, _ in counts.most_common(len(set(true)))]
    return {
        "from the update": recall(found, true),
        "by guessing": recall(common, true),
        "precision": precision(found, true),
        "from a noisy update": recall(tokens_in_update(learner, start, noisy).tokens, true),
    }


CLAIM = Claim(
    id="tokens-read",
    sentence="Updates leak the private text that they were made from.",
    named=("ST", "P"),
    metric="share of the text's tokens that are recovered",
    unit="share",
    arms=("from the update", "by guessing"),
    beside=("precision", "from a noisy update"),
    smallest=0.5,
    higher_is_better=True,
    experiment=experiment,
    limits="The easiest case: one text of 8 words, one step of SGD. AdamW or longer texts hide it.",
    seeds=WRITER_SEEDS,
)
