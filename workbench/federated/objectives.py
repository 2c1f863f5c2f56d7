"""What a model learns from its rows: find the answer, continue a text, answer a question."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from workbench.federated.linear import tensors
from workbench.federated.models import Base
from workbench.federated.partition import Row
from workbench.federated.task import FederatedTask
from workbench.federated.task_checks import text_columns

#: Cosines are multiplied by this before the softmax.
#: Source: MultipleNegativesRankingLoss of sentence-transformers, the default.
SCALE = 20.0
#: Longer questions and answers, texts and conversations are cut [tokens].
MAX_TOKENS = {"retrieval": 64, "text": 96, "chat": 128}
#: Texts that an encoder reads at once.
GROUP = 16
#: The label that torch's cross_entropy leaves out.
IGNORE = -100


@dataclass(frozen=True)
class Loss:
    """A batch's mean loss, over how many predictions, and how many of these were right.

    ``truth`` and ``chosen`` say of each prediction what was right and what the model chose: a
    place in the batch, or a token.
    """

    mean: torch.Tensor
    count: int
    hits: int
    truth: torch.Tensor | None = None
    chosen: torch.Tensor | None = None


class Retrieval:
    """Find the answer to a question among those of the batch; no new weights.

    The loss is the cross-entropy of ``20 cos(question, answer)`` over the batch's answers.
    A question's other rows, and equal answers, are no wrong answers: they are masked.
    """

    eval_rows, eval_batch = 64, 64

    def __call__(self, model: torch.nn.Module, tokenizer, rows: Sequence[Row]) -> Loss:
        """The loss of one batch of questions and answers."""
        return _found(choices(model, tokenizer, rows))

    def together(self, model: torch.nn.Module, tokenizer, batches: Sequence[Sequence[Row]]):
        """The losses of batches of one size, which go through the model behind each other."""
        asked, given = (
            _embed(model, tokenizer, [row[name] for rows in batches for row in rows]).chunk(
                len(batches)
            )
            for name in ("question", "answer")
        )
        return [
            _found(_without_equals(SCALE * one @ other.T, rows))
            for one, other, rows in zip(asked, given, batches, strict=True)
        ]


class Text:
    """Predict each token of a text from those before it."""

    eval_rows, eval_batch = 8, 8

    def __call__(self, model: torch.nn.Module, tokenizer, rows: Sequence[Row]) -> Loss:
        """The loss of one batch of texts."""
        return self.together(model, tokenizer, [rows])[0]

    def together(self, model: torch.nn.Module, tokenizer, batches: Sequence[Sequence[Row]]):
        """The losses of batches of one size, which go through the model behind each other."""
        texts = [row["text"] for rows in batches for row in rows]
        encoded = tokenizer(texts, truncation=True, **_padded("text"))
        labels = encoded["input_ids"].masked_fill(encoded["attention_mask"] == 0, IGNORE)
        return next_token_losses(model, encoded, labels, len(batches))


class Chat:
    """Answer a question in the model's own chat format; only the answer's tokens are learnt."""

    eval_rows, eval_batch = 8, 8

    def __call__(self, model: torch.nn.Module, tokenizer, rows: Sequence[Row]) -> Loss:
        """The loss of one batch of questions and answers."""
        return self.together(model, tokenizer, [rows])[0]

    def together(self, model: torch.nn.Module, tokenizer, batches: Sequence[Sequence[Row]]):
        """The losses of batches of one size, which go through the model behind each other."""
        pairs = [
            conversation(tokenizer, row["question"], row["answer"])
            for rows in batches
            for row in rows
        ]
        encoded = tokenizer.pad(
            {"input_ids": [prompt + answer for prompt, answer in pairs]}, return_tensors="pt"
        )
        labels = encoded["input_ids"].masked_fill(encoded["attention_mask"] == 0, IGNORE)
        for label, (prompt, _) in zip(labels, pairs, strict=True):
            label[: len(prompt)] = IGNORE
        return next_token_losses(model, encoded, labels, len(batches))


class Classify:
    """Tell the class of a row by its features."""

    eval_rows, eval_batch = 256, 256

    def __call__(self, model: torch.nn.Module, tokenizer, rows: Sequence[Row]) -> Loss:
        """The loss of one batch of features and labels."""
        features, labels = (each.to(model.device) for each in tensors(rows))
        return _loss(model(features), labels)


Objective = Retrieval | Text | Chat | Classify


def objective(task: FederatedTask, base: Base) -> Objective:
    """What the task's model learns from the task's data.

    Raises
    ------
    ValueError
        If an encoder meets running text.
    """
    has_text = text_columns(task) == ("text",)
    if base.causal:
        return Text() if has_text else Chat()
    if has_text:
        raise ValueError(
            f"model {task.model!r} is an encoder and learns to find the answer to a question; the "
            "data hold running text. Take a causal model, or data with 'question' and 'answer'."
        )
    return Retrieval()


def embed(model: torch.nn.Module, tokenizer, texts: Sequence[str]) -> torch.Tensor:
    """Unit vectors of texts: the mean of the last layer over the tokens that are no padding.

    Many texts go through the model in groups of like length, so that little is padded.
    """
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    groups = [order[first : first + GROUP] for first in range(0, len(order), GROUP)]
    vectors = torch.cat([_embed(model, tokenizer, [texts[i] for i in group]) for group in groups])
    return vectors[torch.tensor(order).argsort().to(vectors.device)]


def _embed(model: torch.nn.Module, tokenizer, texts: list[str]) -> torch.Tensor:
    padded = _padded("retrieval") | {"return_token_type_ids": False}  # one text, so all are 0
    encoded = tokenizer(texts, truncation=True, **padded).to(model.device)
    length = encoded["input_ids"].shape[1]  # a prompt before the text is not averaged
    hidden = model(**encoded).last_hidden_state[:, -length:]
    mask = encoded["attention_mask"].unsqueeze(-1).to(hidden.dtype)
    return F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


def scores_of(model: torch.nn.Module, tokenizer, rows: Sequence[Row]) -> torch.Tensor:
    """``20 cos(question, answer)``: a row for each question, a column for each answer."""
    asked, given = (
        embed(model, tokenizer, [row[name] for row in rows]) for name in ("question", "answer")
    )
    return SCALE * asked @ given.T


def choices(model: torch.nn.Module, tokenizer, rows: Sequence[Row]) -> torch.Tensor:
    """The same scores without the answers that are no wrong ones, see `same_meaning`."""
    return _without_equals(scores_of(model, tokenizer, rows), rows)


def _without_equals(scores: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
    masked = same_meaning(*([row[name] for row in rows] for name in ("question", "answer")))
    return scores.masked_fill(masked.to(scores.device), -torch.inf)


def same_meaning(questions: Sequence[str], answers: Sequence[str]) -> torch.Tensor:
    """Where a pair of the batch has the question or the answer of another one.

    Examples
    --------
    >>> same_meaning(["a", "a", "b"], ["x", "y", "y"]).int().tolist()
    [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    """
    pairs = list(zip(questions, answers, strict=True))
    return torch.tensor(
        [
            [i != j and (q == r or a == b) for j, (r, b) in enumerate(pairs)]
            for i, (q, a) in enumerate(pairs)
        ]
    )


def conversation(tokenizer, question: str, answer: str | None) -> tuple[list[int], list[int]]:
    """Tokens of the prompt, and of the answer with the mark that ends it."""
    turns = [{"role": "user", "content": question}]
    if tokenizer.chat_template:
        prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    else:
        prompt = f"{question}\n"
    limit = MAX_TOKENS["chat"]
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"][-(limit - 8) :]
    if answer is None:
        return before, []
    after = tokenizer(answer, add_special_tokens=False)["input_ids"][: limit - len(before) - 1]
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return before, after + end


def next_token_losses(model, encoded, labels: torch.Tensor, parts: int) -> list[Loss]:
    """Cross-entropy of each next token, for equal parts of the rows.

    ``labels`` say which tokens are counted.
    """
    device, tokens = model.device, encoded["input_ids"]
    said = model(input_ids=tokens.to(device), attention_mask=encoded["attention_mask"].to(device))
    logits = said.logits[:, -tokens.shape[1] : -1]  # a prompt before the text is not predicted
    pairs = zip(logits.chunk(parts), labels[:, 1:].to(device).chunk(parts), strict=True)
    return [_loss(mine[target != IGNORE], target[target != IGNORE]) for mine, target in pairs]


def _found(scores: torch.Tensor) -> Loss:
    """The loss of questions whose answers are in their order."""
    return _loss(scores, torch.arange(len(scores), device=scores.device))


def _loss(scores: torch.Tensor, truth: torch.Tensor) -> Loss:
    """Cross-entropy of predictions, a row of scores for each."""
    chosen = scores.argmax(1)
    hits = int((chosen == truth).sum())
    mean = F.cross_entropy(scores, truth)
    return Loss(mean, len(truth), hits, truth, chosen)


def _padded(kind: str) -> dict:
    return {"padding": True, "max_length": MAX_TOKENS[kind], "return_tensors": "pt"}
