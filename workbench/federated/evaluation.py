"""What a run has done to the model: for each client, for all, for those worst off, and elsewhere.

Everything is measured twice, before and after: with the model that the run started from, and with
the one that each client has in the end. Losses are cross-entropies of a prediction: of a question,
or of a token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, exp, inf, isnan, log
from sys import float_info

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

from workbench.datasets import load
from workbench.federated.generation import generate
from workbench.federated.history import Evaluation, History
from workbench.federated.learner import Learner
from workbench.federated.linear import is_linear
from workbench.federated.lora import Weights, write_adapter
from workbench.federated.methods.base import ServerState
from workbench.federated.objectives import Objective, Retrieval, Text
from workbench.federated.partition import Row
from workbench.federated.task import FederatedTask

#: Fewer clients than this have no decile: the worst one is told.
DECILE = 10
#: Addresses from this year on are taken for plain English of today.
MODERN = 1945
#: The two times of measuring.
BEFORE, AFTER = "before", "after"


@dataclass(frozen=True)
class Report:
    """Tables of a run, each with a row before and a row after it.

    Parameters
    ----------
    clients : DataFrame
        For each client: predictions, loss [nat], perplexity, accuracy, macro F1.
    overall : DataFrame
        The same over all clients' predictions, with the `fairness` across clients.
    plain : DataFrame
        The same on plain English that nobody trained on: what the run has made it forget; empty
        for a linear classifier, which reads none.
    samples : DataFrame or None
        What the model said to some prompts; ``None`` if none was given.
    """

    clients: pd.DataFrame
    overall: pd.DataFrame
    plain: pd.DataFrame
    samples: pd.DataFrame | None


@dataclass(frozen=True)
class Fairness:
    """How unlike the clients' losses are.

    Parameters
    ----------
    worst : float
        Loss of the worst client, or the mean of the worst tenth where there are 10 or more [nat].
    spread : float
        Standard deviation of the clients' losses, each client counting the same [nat].
    clients : int
        How many of them ``worst`` is of.
    """

    worst: float
    spread: float
    clients: int


def fairness(losses: Mapping[str, float]) -> Fairness:
    """The fairness across clients, client -> loss [nat].

    Examples
    --------
    >>> fairness({"a": 1.0, "b": 3.0})
    Fairness(worst=3.0, spread=1.0, clients=1)
    >>> fairness({str(i): float(i) for i in range(20)}).worst  # of 18 and 19
    18.5
    """
    if not losses:
        raise ValueError("fairness of 0 clients; give the losses of at least one.")
    if odd := [client for client, loss in losses.items() if isnan(loss)]:
        raise ValueError(f"fairness of losses that are no numbers, of {', '.join(odd)}.")
    ordered = sorted(losses.values())
    count = ceil(len(ordered) / DECILE) if len(ordered) >= DECILE else 1
    return Fairness(float(np.mean(ordered[-count:])), float(np.std(ordered)), count)


def evaluate(
    task: FederatedTask, weights: Weights, base_deltas: Weights | None = None
) -> Evaluation:
    """Held-out losses of one common model on a task's clients.

    Runs with unlike partitions have unlike clients; measured on one task's, they compare.

    Parameters
    ----------
    task : FederatedTask
        Whose clients, and whose kind of tuning.
    weights, base_deltas : dict
        Of a run's history.
    """
    learner = Learner(task)
    learner.write_base(base_deltas or {})
    return evaluated(learner, weights)


def evaluated(learner: Learner, weights: Weights) -> Evaluation:
    """The same evaluation that a server collects from its clients."""
    named = enumerate(client.name for client in learner.clients)
    return Evaluation.over({name: learner.evaluate(weights, index) for index, name in named})


def report(history: History, prompts: Sequence[str] = (), plain_rows: int = 32) -> Report:
    """Measure a run's model again, before and after, with all that its rounds don't tell.

    Parameters
    ----------
    history : History
        A run; its task says on which held-out rows.
    prompts : sequence of str
        What a causal model is asked to continue or to answer.
    plain_rows : int
        Rows of plain English, see `plain_english`; at least 2.

    Raises
    ------
    ValueError
        If an encoder, which says nothing, is given prompts.
    """
    if type(plain_rows) is not int or plain_rows < 2:
        raise ValueError(f"plain_rows={plain_rows!r}; it is a whole number of at least 2.")
    said = samples(history, prompts) if prompts else None
    learner = Learner(history.task)
    clients, overall = [], []
    for when in (BEFORE, AFTER):
        found = _by_client(learner, history, when)
        scores = {name: _scores([each]) for name, each in found.items()}
        clients += [{"client": name, "when": when} | each for name, each in scores.items()]
        fair = fairness({name: each["loss"] for name, each in scores.items()})
        together = _scores(list(found.values()))
        overall.append({"when": when} | together | {"worst": fair.worst, "spread": fair.spread})
    return Report(
        pd.DataFrame(clients).set_index(["client", "when"]),
        pd.DataFrame(overall).set_index("when"),
        pd.DataFrame() if is_linear(learner.task) else forgetting(history, plain_rows, learner),
        said,
    )


def forgetting(
    history: History, plain_rows: int = 32, learner: Learner | None = None
) -> pd.DataFrame:
    """Loss and the like on plain English before and after a run; a loss that rises is forgetting.

    A causal model predicts each token; an encoder finds the second half of a text by its first.

    Raises
    ------
    ValueError
        If the model is a linear classifier, which reads no texts.
    """
    if is_linear(history.task):
        raise ValueError("model='linear' reads features, so there is no plain English to forget.")
    learner = learner or Learner(history.task)
    rows = plain_english(history.task, plain_rows)
    objective: Objective = Text()
    if isinstance(learner.objective, Retrieval):
        objective, rows = Retrieval(), [_halves(row["text"]) for row in rows]
    scores = []
    for when in (BEFORE, AFTER):
        write_adapter(learner.parameters, _common(learner, history, when))
        scores.append({"when": when} | _scores([_measure(learner, rows, objective)]))
    return pd.DataFrame(scores).set_index("when")


def plain_english(task: FederatedTask, count: int) -> list[Row]:
    """Held-out texts of another data set than the task's own, evenly spaced, with a key ``text``.

    State of the Union addresses since 1945; for a task on these, questions with their answers.
    """
    if task.dataset == "sotu":
        rows = [row for row in load("chatterbot") if row["split"] == "test"]
        texts = [f"{row['question']} {row['answer']}" for row in rows]
    else:
        rows = [row for row in load("sotu") if row["split"] == "test" and row["year"] >= MODERN]
        texts = [row["text"] for row in rows]
    places = np.linspace(0, len(texts) - 1, min(count, len(texts))).round().astype(int)
    return [{"text": texts[place]} for place in places]


def samples(history: History, prompts: Sequence[str], max_new_tokens: int = 40) -> pd.DataFrame:
    """What the model says to each prompt before and after a run; see `generate`."""
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    before = generate(history.task, prompts, None, max_new_tokens)
    after = generate(history.task, prompts, history.weights, max_new_tokens, history.base_deltas)
    return pd.DataFrame({"prompt": prompts, BEFORE: before, AFTER: after})


@dataclass(frozen=True)
class _Measured:
    """Predictions: the sum of their losses [nat], what was right, and what was chosen."""

    loss: float
    truth: list
    chosen: list


def _by_client(learner: Learner, history: History, when: str) -> dict[str, _Measured]:
    """Each client with the model that it uses, on those of its held-out rows that are evaluated."""
    found = {}
    for index, client in enumerate(learner.clients):
        if rows := learner.evaluated_rows(index):
            write_adapter(learner.parameters, _weights(learner, history, index, when))
            measured = _measure(learner, rows, learner.objective)
            found |= {client.name: measured} if measured.truth else {}
    return found


def _weights(learner: Learner, history: History, index: int, when: str) -> Weights:
    """The arrays that a client uses, with the base below them as it has it."""
    name = learner.clients[index].name
    if when == AFTER and name in history.personal:
        learner.write_base(history.base_deltas)
        return history.personal[name]
    method, server = learner.task.method, _server(learner, history, when)
    sent = method.evaluated(server, index)
    return method.used(learner, method.own(sent, {}, learner.start))


def _common(learner: Learner, history: History, when: str) -> Weights:
    """The common model's arrays, with its base below them."""
    server = _server(learner, history, when)
    learner.write_base(server.base_deltas)
    return server.weights


def _server(learner: Learner, history: History, when: str) -> ServerState:
    if when == BEFORE:
        return ServerState(learner.start())
    return ServerState(history.weights, history.base_deltas)


def _measure(learner: Learner, rows: Sequence[Row], objective: Objective) -> _Measured:
    total, truth, chosen = 0.0, [], []
    for batch, loss in learner.losses(rows, objective):
        total += loss.mean.item() * loss.count
        answers = [row["answer"] for row in batch] if isinstance(objective, Retrieval) else None
        for found, places in ((truth, loss.truth), (chosen, loss.chosen)):
            ids = places.tolist()
            found += [answers[i] for i in ids] if answers else ids
    return _Measured(total, truth, chosen)


def _scores(parts: Sequence[_Measured]) -> dict[str, float]:
    """Of all predictions: loss [nat], its exponential, share of right ones, F1.

    F1 is scikit-learn's macro average: over the answers or tokens that were right or were chosen
    somewhere, each counting the same.
    """
    truth, chosen = ([x for part in parts for x in getattr(part, k)] for k in ("truth", "chosen"))
    loss = sum(part.loss for part in parts) / len(truth)
    return {
        "predictions": len(truth),
        "loss": loss,
        "perplexity": exp(loss) if loss < log(float_info.max) else inf,
        "accuracy": sum(a == b for a, b in zip(truth, chosen, strict=True)) / len(truth),
        "f1": float(f1_score(truth, chosen, average="macro", zero_division=0)),
    }


def _halves(text: str) -> Row:
    words = text.split()
    middle = len(words) // 2
    return {"question": " ".join(words[:middle]), "answer": " ".join(words[middle:])}
