"""What a task refuses, and its own rows as plain values."""

import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from workbench.federated.linear import is_linear
from workbench.federated.methods.base import TUNES
from workbench.federated.option import is_finite, is_number
from workbench.federated.options import FAMILIES
from workbench.federated.options.attack import Backdoor, LabelFlip
from workbench.federated.options.compatible import check_compatible

#: Data that come with the project, and the columns that hold the text of each.
DATASETS = {"chatterbot": ("question", "answer"), "sotu": ("text",)}
#: A linear head has a row of weights for each label up to the largest.
MOST_LABELS = 100_000
#: What a row may be for, and what a run evaluates on.
SPLITS = ("train", "test", "validation")
CHOICES = {
    "optimizer": ("adamw", "sgd"),
    "tune": TUNES,
    "start": ("pretrained", "random"),
    "eval_split": SPLITS[1:],
}


def check_task(task: Any) -> None:
    """Refuse a task that no run can have; in order: words, numbers, data, options."""
    _check_choices(task)
    _check_numbers(task)
    if is_linear(task):
        _check_linear(task)
    else:
        _check_data(task)
    if not isinstance(task.dataset, str):
        _check_splits(task.dataset)
    _check_options(task)


def as_rows(data: Any) -> tuple[dict[str, Any], ...]:
    """Own data as a tuple of dicts with plain values; takes dicts or a DataFrame."""
    if hasattr(data, "to_dict") and hasattr(data, "columns"):
        data = data.to_dict("records")
    if isinstance(data, Mapping) or not isinstance(data, Iterable):
        raise ValueError(
            f"dataset is a {type(data).__name__}; give one of {list(DATASETS)}, a list of dicts or "
            "a DataFrame, with a column 'client' and 'question', 'answer' or 'text'."
        )
    rows = tuple(data)
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ValueError(f"row {number} of dataset is a {type(row).__name__}; give a dict.")
    rows = tuple(map(dict, rows))
    if not rows:
        raise ValueError("dataset has 0 rows; a run needs at least 2 for each client.")
    try:
        rows = json.loads(json.dumps(rows, default=_plain))
    except TypeError as error:
        raise ValueError(f"dataset has a value that JSON can't hold: {error}") from None
    # A table has something in every cell: what is missing in a row is no value of it.
    return tuple({k: v for k, v in row.items() if v is not None and v == v} for row in rows)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} {value!r}")


def text_columns(task: Any) -> tuple[str, ...]:
    """The columns that hold what the task learns from: question and answer, text, or features."""
    if is_linear(task):
        return ("features",)
    if isinstance(task.dataset, str):
        return DATASETS[task.dataset]
    columns = set().union(*task.dataset)
    return ("question", "answer") if {"question", "answer"} <= columns else ("text",)


def _check_choices(task: Any) -> None:
    for name, allowed in CHOICES.items():
        if getattr(task, name) not in allowed:
            raise ValueError(f"{name}={getattr(task, name)!r}; it is one of {list(allowed)}.")
    if task.start == "random" and task.tune != "full":
        raise ValueError(
            f"start='random' with tune={task.tune!r}; a random model has to learn in all its "
            "weights. Take tune='full', or start='pretrained'."
        )
    if not isinstance(task.model, str) or not task.model:
        raise ValueError(f"model={task.model!r}; give a name, a folder or an id.")


def _check_numbers(task: Any) -> None:
    at_least = {"seed": 0} | {f.name: 1 for f in fields(task) if f.type is int and f.name != "seed"}
    if task.eval_examples is not None:
        at_least["eval_examples"] = 2  # a question alone has no wrong answer beside it
    for name, least in at_least.items():
        value = getattr(task, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name}={value!r}; it is a whole number of at least {least}.")
    for name in ("lr", "lora_scale", "max_update_norm"):
        value = getattr(task, name)
        if value is not None and not (is_finite(value) and value > 0):
            raise ValueError(f"{name}={value!r}; it is a finite number above 0.")
    if task.clients_per_round > task.num_clients:
        raise ValueError(
            f"clients_per_round={task.clients_per_round} of num_clients={task.num_clients}; a "
            "client trains once in a round, so take at most all of them."
        )
    if task.min_clients > task.clients_per_round:
        raise ValueError(
            f"min_clients={task.min_clients} with clients_per_round={task.clients_per_round}; no "
            "round could go on. Lower the first or raise the second."
        )


def _is_name(value: Any) -> bool:
    """Whether it can name a client: text, or a number; a table's missing value is neither."""
    return _is_text(value) or is_finite(value)


def _is_text(value: Any) -> bool:
    """Whether it is text that says something, and that can be written down."""
    try:
        return isinstance(value, str) and bool(value.strip()) and bool(value.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def _check_data(task: Any) -> None:
    if isinstance(task.dataset, str):
        if task.dataset not in DATASETS:
            raise ValueError(
                f"dataset={task.dataset!r}; it is one of {list(DATASETS)}, or your own rows."
            )
    else:
        needed = {"client", *text_columns(task)}
        for number, row in enumerate(task.dataset):
            good = {n: (_is_name if n == "client" else _is_text)(row.get(n)) for n in needed}
            if missing := sorted(name for name in needed if not good[name]):
                raise ValueError(
                    f"row {number} of dataset has no {missing}; each row needs 'client', a text or "
                    "a number, and either 'question' and 'answer', or 'text', as texts."
                )
    if task.model == "minilm" and text_columns(task) == ("text",):
        raise ValueError(
            "model='minilm' is an encoder and learns to find the answer to a question; the data "
            "hold running text. Take 'smollm2-135m', or data with 'question' and 'answer'."
        )


def _check_splits(rows: Any) -> None:
    """Raise ValueError if a row is in a split that nobody reads."""
    for number, row in enumerate(rows):
        if row.get("split", "train") not in SPLITS:
            raise ValueError(
                f"row {number} of dataset has split={row['split']!r}; it is one of {list(SPLITS)}, "
                "or no row has a split."
            )


def _check_linear(task: Any) -> None:
    if task.tune != "head" or isinstance(task.dataset, str):
        raise ValueError(
            f"model='linear' with tune={task.tune!r} and dataset={_named(task.dataset)}; it is a "
            "head on features that rows bring: take tune='head', and rows with 'client', "
            "'features' and 'label', as digit_rows() and embedded_rows(...) make them."
        )
    first = task.dataset[0].get("features")
    width = len(first) if isinstance(first, list) else 0
    for number, row in enumerate(task.dataset):
        features, label = row.get("features"), row.get("label")
        good = isinstance(features, list) and len(features) == width > 0
        good = good and all(map(is_finite, features))
        good = good and is_number(label) and isinstance(label, int) and 0 <= label < MOST_LABELS
        if not (good and _is_name(row.get("client"))):
            raise ValueError(
                f"row {number} of dataset needs 'client', 'features', as many finite numbers as in "
                f"row 0 ({width}), and 'label', a whole number from 0 to {MOST_LABELS - 1}."
            )
    if isinstance(task.attack, LabelFlip | Backdoor):
        raise ValueError(f"{task.attack!r} changes texts, and model='linear' has none.")


def _named(dataset: Any) -> str:
    return repr(dataset) if isinstance(dataset, str) else "own rows"


def _check_options(task: Any) -> None:
    options = {family: getattr(task, family) for family in FAMILIES}
    for option in filter(None, options.values()):
        if not option.available:
            raise ValueError(f"{option!r} is not available yet; leave {option.family} out.")
        option.check_task(task)
    if task.tune not in task.method.tunes:
        raise ValueError(
            f"{task.method!r} with tune={task.tune!r}; it works with {list(task.method.tunes)}. "
            "Take one of these, or method='fedavg'."
        )
    check_compatible(options)
    if task.privacy is not None and task.privacy.delta >= 1 / task.num_clients:
        warnings.warn(
            f"delta={task.privacy.delta:g} is not below 1/num_clients = {1 / task.num_clients:g}: "
            "a mechanism that publishes one client at random would pass. Take a smaller one.",
            stacklevel=5,
        )
