"""Clients send scores on public text, not adapters; a student learns from their mean."""

import torch
import torch.nn.functional as F

from workbench.federated.claims.claim import Claim
from workbench.federated.claims.setting import (
    BATCH,
    ROUNDS,
    STEPS,
    base,
    common_end,
    common_loss,
    common_rows,
    rounds_from,
    run,
)
from workbench.federated.learner import Learner, torch_threads
from workbench.federated.lora import Weights, read_adapter, write_adapter
from workbench.federated.objectives import scores_of
from workbench.federated.partition import BATCHES, Row, generator

#: Public questions and answers; the student does not know which belong together.
PUBLIC = 48


def teach(learner: Learner, target: torch.Tensor, rows: list[Row], seed: int) -> Weights:
    """Train the pretrained model towards the teachers' distribution on batches of ``rows``."""
    write_adapter(learner.parameters, learner.start())
    optimizer, draw = learner.optimizer(), generator(seed, BATCHES, 998)
    for _ in range(ROUNDS * STEPS):
        chosen = torch.from_numpy(draw.permutation(len(rows))[: 2 * BATCH])
        wanted = target[chosen][:, chosen].softmax(1)
        optimizer.zero_grad()
        batch = [rows[i] for i in chosen.tolist()]
        said = scores_of(learner.model, learner.tokenizer, batch)
        F.kl_div(said.log_softmax(1), wanted, reduction="batchmean").backward()
        optimizer.step()
    return read_adapter(learner.parameters)


def experiment(seed: int) -> dict[str, float]:
    """A teacher a client, each tuned on its own pairs; one student that sees none of these."""
    task, rows = base(seed, local_steps=ROUNDS * STEPS), common_rows(seed, "validation", PUBLIC)
    learner, said = Learner(task), []
    with torch_threads(task.threads):
        start, clients = learner.start(), range(task.num_clients)
        for update in rounds_from(learner, start, clients, [1])[1][0]:
            write_adapter(learner.parameters, update.arrays)
            with torch.no_grad():
                said.append(scores_of(learner.model, learner.tokenizer, rows))
        student = teach(learner, torch.stack(said).mean(0), rows, seed)
    plain = run(base(seed))
    return {
        "distilled": common_loss(learner, student, common_rows(seed)),
        "pretrained": common_loss(learner, start, common_rows(seed)),
        "averaged": common_end(plain),
        "kB up, distilled": said[0].numel() * said[0].element_size() / 1e3,
        "kB up, averaged": plain.rounds[0].uplink_bytes * ROUNDS / task.num_clients / 1e3,
    }


CLAIM = Claim(
    id="distilled",
    sentence="Knowledge travels as scores on public text, in far fewer bytes than weights.",
    named=("ST",),
    metric="held-out loss on pairs of all topics",
    unit="nat",
    arms=("distilled", "pretrained"),
    beside=("averaged", "kB up, distilled", "kB up, averaged"),
    smallest=0.02,
    experiment=experiment,
    limits="Scores are sent once; the public text is of the same corpus as the private one.",
)
