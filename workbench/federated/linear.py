"""A linear classifier on features that stay as they are: of digits, or a frozen encoder's.

``FederatedTask(model="linear", tune="head", dataset=rows)`` with rows of ``client``, ``features``
(numbers, equally many in each row) and ``label`` (a whole number from 0) trains
``softmax(W x + b)`` from W = 0, b = 0. It is what is left of a foundation model's fine-tuning when
the model itself is frozen and its vectors are computed once. W and b are float32 and products
float64: AdamW divides a gradient by its own size, so that one of rounding errors alone would move
W as far as any other.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

#: The model's name in a task, and the names of its two arrays.
LINEAR = "linear"
WEIGHT, BIAS = "weight", "bias"
#: The largest value of a pixel. Source: sklearn.datasets.load_digits, "integers in 0..16".
LARGEST_PIXEL = 16


def is_linear(task: Any) -> bool:
    """Whether the task's model is a linear classifier."""
    return task.model == LINEAR


def sizes(rows: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Classes and features of a task's rows.

    Examples
    --------
    >>> sizes([{"features": [0.5, 1.0], "label": 0}, {"features": [1.0, 0.0], "label": 2}])
    (3, 2)
    """
    return 1 + max(row["label"] for row in rows), len(rows[0]["features"])


def shapes(task: Any) -> dict[str, tuple[int, ...]]:
    """The two arrays that travel, in the order of their names."""
    classes, features = sizes(task.dataset)
    return {BIAS: (classes,), WEIGHT: (classes, features)}


def start(task: Any) -> dict[str, np.ndarray]:
    """Zeros: every class is as likely as any other."""
    return {name: np.zeros(shape, np.float32) for name, shape in shapes(task).items()}


class LinearHead(torch.nn.Module):
    """``W x + b``: a score for each class."""

    def __init__(self, classes: int, features: int):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(classes))
        self.weight = torch.nn.Parameter(torch.zeros(classes, features))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.weight.device

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """The scores of each row, in float64."""
        return F.linear(features.double(), self.weight.double(), self.bias.double())


def opened(weights: Mapping[str, np.ndarray]) -> LinearHead:
    """The classifier with these arrays."""
    head = LinearHead(*weights[WEIGHT].shape)
    head.load_state_dict({name: torch.from_numpy(weights[name]) for name in (WEIGHT, BIAS)})
    return head


def tensors(rows: Sequence[Mapping[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and labels of rows."""
    features = torch.tensor([row["features"] for row in rows], dtype=torch.float64)
    return features, torch.tensor([row["label"] for row in rows])


def digit_rows() -> list[dict[str, Any]]:
    """scikit-learn's digits, 8 x 8 pixels from 0 to 1; ``client`` is the digit.

    Share them out by a partition: ``Dirichlet(alpha)`` gives clients different digits.
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    return [
        {"client": str(label), "features": (image / LARGEST_PIXEL).tolist(), "label": int(label)}
        for image, label in zip(found.data, found.target, strict=True)
    ]


def embedded_rows(
    rows: Sequence[Mapping[str, Any]],
    text: str = "question",
    label: str = "client",
    model: str = "minilm",
) -> list[dict[str, Any]]:
    """Rows with the vectors that a frozen encoder gives their texts, for a linear classifier.

    Parameters
    ----------
    rows : sequence of dict
        With a text, something to tell it by, and what else shall stay, such as ``split``.
    text, label : str
        Columns: the text, and what is to be told. The classes are its distinct values in order.
    model : str
        An encoder, as in `FederatedTask`.

    Raises
    ------
    ValueError
        If the model is no encoder.
    """
    from workbench.federated.models import load_base
    from workbench.federated.objectives import embed

    base = load_base(model)
    if base.causal:
        raise ValueError(f"model={model!r} writes text and is no encoder; take 'minilm'.")
    classes = {value: i for i, value in enumerate(sorted({str(row[label]) for row in rows}))}
    with torch.no_grad():
        vectors = embed(base.model, base.tokenizer, [row[text] for row in rows]).cpu().tolist()
    kept = [
        {k: v for k, v in row.items() if k not in ("question", "answer", "text")} for row in rows
    ]
    return [
        row | {"features": vector, "label": classes[str(given[label])]}
        for row, vector, given in zip(kept, vectors, rows, strict=True)
    ]
