"""What an update or a model tells about the rows behind it: attacks as experiments.

They are meant for public data: the figures hold for the settings that they are made with.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from sklearn.metrics import roc_auc_score

from workbench.federated.learner import Learner, torch_threads
from workbench.federated.lora import Weights, write_adapter
from workbench.federated.objectives import Retrieval, choices
from workbench.federated.partition import Row

#: The adapter that is read: values of the first layer, whose input is a token's embedding alone.
FIRST = "layers.0.self_attn.v_proj"
#: Directions of an update that are smaller than this part of its largest are rounding.
RANK_TOLERANCE = 1e-6
#: A token is in the update if this part of its direction, or less, lies outside.
RESIDUAL = 1e-3
#: Bootstrap samples behind an interval, and the seed that draws them.
RESAMPLES, RESAMPLING_SEED = 1000, 36
#: Of the intervals.
LEVEL = 0.95


@dataclass(frozen=True)
class FoundTokens:
    """Tokens that an update can have been made of, and how much of the adapter's rank it fills.

    ``directions`` of ``rank``: where all are filled every token fits, so none is named.
    """

    tokens: tuple[int, ...]
    directions: int
    rank: int


def tokens_in_update(learner: Learner, sent: Weights, received: Weights) -> FoundTokens:
    """Which tokens a client's text held, read from its change of one adapter.

    The first layer sees a token as ``x = norm(embedding)``, the same at every place. One step of
    SGD from B = 0 changes B by ``-lr s sum_t g_t (A x_t)^T``, so the rows of the change span the
    ``A x_t`` of the text's tokens. A token of the vocabulary is named if its ``A x`` lies in that
    span. It works as long as fewer tokens than the rank r leave a direction free.

    Left out: the order and number of tokens, the last one (nothing is predicted from it), and
    what more than one step or another optimizer does to the span.

    Parameters
    ----------
    learner : Learner
        A causal model with rotary or no positions, such as SmolLM2.
    sent, received : dict
        The adapter that the server sent, and the one that the client sent back.

    Raises
    ------
    ValueError
        If the model has no such adapter.

    References
    ----------
    Petrov et al., DAGER: Exact Gradient Inversion for Large Language Models, 2024,
    https://arxiv.org/abs/2405.15586
    """
    a, change = _first_adapter(sent, received)
    return in_span(embedded_tokens(learner.model) @ a.T, change)


def in_span(
    seen: Float[np.ndarray, "vocabulary rank"], change: Float[np.ndarray, "outputs rank"]
) -> FoundTokens:
    """Which rows of ``seen`` lie in the span of the rows of ``change``, up to rounding.

    Examples
    --------
    >>> seen = np.array([[1.0, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1]])
    >>> in_span(seen, np.outer([1.0, 2.0], seen[2]))
    FoundTokens(tokens=(2,), directions=1, rank=3)
    """
    if not np.isfinite(change).all():
        raise ValueError("the change holds numbers that are not finite, so it spans nothing.")
    _, sizes, directions = np.linalg.svd(change, full_matrices=False)
    rank = change.shape[1]
    filled = int((sizes > RANK_TOLERANCE * sizes[0]).sum()) if sizes[0] > 0 else 0
    if filled in (0, rank):
        return FoundTokens((), filled, rank)
    span = directions[:filled]
    outside = seen - seen @ span.T @ span
    share = np.linalg.norm(outside, axis=1) / np.maximum(np.linalg.norm(seen, axis=1), 1e-30)
    return FoundTokens(tuple(np.flatnonzero(share < RESIDUAL).tolist()), filled, rank)


def _first_adapter(sent: Weights, received: Weights) -> tuple[np.ndarray, np.ndarray]:
    names = {side: [n for n in sent if f"{FIRST}.lora_{side}" in n] for side in "AB"}
    if not all(names.values()):
        raise ValueError(
            f"none of the {len(sent)} arrays is an adapter of {FIRST}: the attack reads the first "
            "layer's values of a Llama-like model. Take model='smollm2-135m' with tune='lora'."
        )
    a, b = names["A"][0], names["B"][0]
    return sent[a].astype(np.float64), received[b].astype(np.float64) - sent[b]


@torch.no_grad()
def embedded_tokens(model: torch.nn.Module) -> Float[np.ndarray, "vocabulary width"]:
    """What the first layer sees of each token of the vocabulary, in float64."""
    inner = model.get_base_model().model
    seen = inner.layers[0].input_layernorm(inner.embed_tokens.weight)
    return seen.double().cpu().numpy()


def recall(found: Sequence[int], true: Sequence[int]) -> float:
    """The share of the distinct true tokens that were found.

    Examples
    --------
    >>> recall([1, 2, 9], [1, 2, 2, 3])
    0.6666666666666666
    """
    if not len(true):
        raise ValueError("recall of 0 true tokens; give those that the text held.")
    return len(set(found) & set(true)) / len(set(true))


def precision(found: Sequence[int], true: Sequence[int]) -> float:
    """The share of what was found that is true; 1 if nothing was found.

    Examples
    --------
    >>> precision([1, 2, 9], [1, 2, 2, 3])
    0.6666666666666666
    """
    return len(set(found) & set(true)) / len(set(found)) if found else 1.0


@dataclass(frozen=True)
class Membership:
    """How well members are told from others: areas under the ROC curve, 0.5 being chance.

    ``auc`` is by the fall of the loss against the pretrained model, with its 95 % bootstrap
    interval ``low`` to ``high``; ``auc_of_loss`` by the loss alone, which confuses easy rows with
    known ones.
    """

    auc: float
    low: float
    high: float
    auc_of_loss: float


def membership(
    learner: Learner,
    start: Weights,
    tuned: Weights,
    members: Sequence[Row],
    others: Sequence[Row],
    base_deltas: Weights | None = None,
) -> Membership:
    """Tell rows that a model was tuned on from rows of the same sources that it wasn't.

    Parameters
    ----------
    learner : Learner
        The task's model.
    start, tuned : dict
        The pretrained model's adapter (B = 0) and that after tuning.
    members, others : sequence of dict
        Rows of training, and rows held out **of the same clients**: of others the topic would
        tell, not the training.
    base_deltas : dict or None
        What a run's method merged into the base of the tuned model.

    Raises
    ------
    ValueError
        If there are no members or no others, or a model's losses are not finite.

    References
    ----------
    Carlini et al., Membership Inference Attacks From First Principles, 2021,
    https://arxiv.org/abs/2112.03570 (on why scores are calibrated by row)
    """
    if not len(members) or not len(others):
        raise ValueError(f"{len(members)} members and {len(others)} others; give both.")
    rows = [*members, *others]
    before, after = row_losses(learner, start, rows), row_losses(learner, tuned, rows, base_deltas)
    truth = np.repeat([1, 0], [len(members), len(others)])
    fall = before - after
    if not np.isfinite(fall).all():
        raise ValueError("a model's losses are not finite, so they tell nobody apart.")
    low, high = _interval(truth, fall)
    return Membership(
        float(roc_auc_score(truth, fall)), low, high, float(roc_auc_score(truth, -after))
    )


def row_losses(
    learner: Learner, weights: Weights, rows: Sequence[Row], base_deltas: Weights | None = None
) -> Float[np.ndarray, " rows"]:
    """The loss of each row by itself [nats]; an encoder chooses among all rows' answers.

    ``weights`` and ``base_deltas`` are a run's; without the second the base is the pretrained one.
    """
    learner.write_base(base_deltas or {})
    write_adapter(learner.parameters, weights)
    with torch_threads(learner.task.threads), torch.no_grad():
        if isinstance(learner.objective, Retrieval):
            return _retrieval_losses(learner, rows)
        losses = [learner.objective(learner.model, learner.tokenizer, [row]) for row in rows]
    return np.array([loss.mean.item() for loss in losses])


def _retrieval_losses(learner: Learner, rows: Sequence[Row]) -> np.ndarray:
    scores = choices(learner.model, learner.tokenizer, rows)
    target = torch.arange(len(rows), device=scores.device)
    return F.cross_entropy(scores, target, reduction="none").cpu().numpy().astype(np.float64)


def _interval(truth: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """Members and others are drawn again, each with replacement."""
    draw = np.random.default_rng(RESAMPLING_SEED)
    groups = [np.flatnonzero(truth == value) for value in (0, 1)]
    areas = []
    for _ in range(RESAMPLES):
        picked = np.concatenate([draw.choice(group, len(group)) for group in groups])
        areas.append(_area(truth[picked], scores[picked]))
    low, high = np.quantile(areas, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _area(truth: np.ndarray, scores: np.ndarray) -> float:
    """The share of pairs in which the member's score is higher; ties count half."""
    ahead = scores[truth == 1][:, None] - scores[truth == 0]
    return float(((ahead > 0) + 0.5 * (ahead == 0)).mean())


def canaries(words: Sequence[str], count: int, length: int, draw: np.random.Generator) -> list[str]:
    """Texts of random words: nothing but training makes one of them more likely than another.

    Put half of them into the training rows; `membership` of that half against the other says what
    the model remembers.

    References
    ----------
    Carlini et al., The Secret Sharer, 2018, https://arxiv.org/abs/1802.08232

    Examples
    --------
    >>> canaries(["red", "green", "blue"], count=2, length=3, draw=np.random.default_rng(0))
    ['blue green green', 'red red red']
    """
    return [" ".join(draw.choice(list(words), length).tolist()) for _ in range(count)]
