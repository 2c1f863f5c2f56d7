"""What a federated run is: one frozen record that every process of the run can read."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

#: Data that come with the project, and the columns that hold the text of each.
DATASETS = {"chatterbot": ("question", "answer"), "sotu": ("text",)}
#: Learning rates that lowered the loss on validation text most; other models take the last.
LEARNING_RATES = {"minilm": 5e-3, "smollm2-135m": 1e-3, None: 5e-4}
#: SGD needs larger steps than AdamW on the same adapters.
SGD_FACTOR = 300.0

CHOICES = {
    "optimizer": ("adamw", "sgd"),
    "tune": ("lora",),
    "method": ("fedavg",),
    "eval_split": ("test", "validation"),
}


@dataclass(frozen=True, kw_only=True)
class FederatedTask:
    """A federated fine-tuning run.

    Parameters
    ----------
    model : str
        ``"minilm"`` (sentence encoder, 22.7 M parameters), ``"smollm2-135m"`` (generative), or
        the folder or id of any encoder or causal model that transformers can load.
    dataset : str or rows
        ``"chatterbot"`` (questions and answers, by topic), ``"sotu"`` (State of the Union, by
        president), or your own rows: dicts or a DataFrame with a column ``client`` and either
        ``question`` and ``answer``, or ``text``. Without a column ``split`` a seeded one is made.
    num_clients : int
        Clients; at most as many as the data have natural sources.
    clients_per_round : int
        Clients that train in each round, drawn anew from ``seed``.
    rounds, local_steps, batch_size : int
        Rounds; steps of the optimizer that a client makes in each; rows of a step.
    optimizer : {"adamw", "sgd"}
        Made anew by each client in each round, as in FedAvg.
    lr : float or None
        Learning rate of the clients; ``None`` takes one that was tuned for the model.
    seed : int
        Of the split, the partition, the adapters, the sampling of clients and of batches.
    threads : int
        CPU threads of torch while a client works; bits differ between 1 and 2.
    tune : {"lora"}
        What is trained: low-rank adapters on the projections that peft chooses for the model.
    lora_rank, lora_scale
        Rank r of the adapters; ``lora_scale`` times B A is added to a weight.
    min_clients : int
        Fewest valid updates with which a round goes on.
    max_update_norm : float or None
        A larger update is refused; ``None`` is 10 times the round's median, with 3 or more.
    method : {"fedavg"}
        How updates are joined: weighted by the number of training rows.
    eval_examples : int or None
        Most held-out rows of each client that are evaluated; ``None`` is 64 for encoders, 8 for
        causal models.
    eval_split : {"test", "validation"}
        Which held-out rows the losses are of. Tune on ``"validation"``.

    Raises
    ------
    ValueError
        For a value that no run can have.

    Examples
    --------
    >>> task = FederatedTask(num_clients=4, clients_per_round=2)
    >>> task.model, task.learning_rate
    ('minilm', 0.005)
    >>> FederatedTask.from_json(task.to_json()) == task
    True
    """

    model: str = "minilm"
    dataset: Any = field(default="chatterbot", repr=False)
    num_clients: int = 8
    clients_per_round: int = 4
    rounds: int = 5
    local_steps: int = 5
    batch_size: int = 8
    optimizer: str = "adamw"
    lr: float | None = None
    seed: int = 0
    threads: int = 1
    tune: str = "lora"
    lora_rank: int = 8
    lora_scale: float = 2.0
    min_clients: int = 1
    max_update_norm: float | None = None
    method: str = "fedavg"
    eval_examples: int | None = None
    eval_split: str = "test"

    def __post_init__(self):
        if not isinstance(self.dataset, str):
            object.__setattr__(self, "dataset", as_rows(self.dataset))
        _check_choices(self)
        _check_numbers(self)
        _check_data(self)

    @property
    def learning_rate(self) -> float:
        """The learning rate in use: ``lr``, or the one tuned for the model."""
        if self.lr is not None:
            return self.lr
        tuned = LEARNING_RATES.get(self.model, LEARNING_RATES[None])
        return tuned * SGD_FACTOR if self.optimizer == "sgd" else tuned

    def to_json(self) -> str:
        """Everything, own rows included, as JSON: it travels to the apps of a simulation."""
        return json.dumps(asdict(self))

    def public_json(self) -> str:
        """The same, but own rows are replaced by their number and their SHA-256."""
        values = asdict(self)
        if not isinstance(self.dataset, str):
            text = json.dumps(self.dataset, sort_keys=True)
            values["dataset"] = {
                "rows": len(self.dataset),
                "sha256": hashlib.sha256(text.encode()).hexdigest(),
            }
        return json.dumps(values, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "FederatedTask":
        """Read what `to_json` wrote, or `public_json` for a task without own rows."""
        values = json.loads(text)
        if isinstance(values["dataset"], dict):
            raise ValueError(
                f"this task was about own data, which are not stored with it: {values['dataset']}; "
                "give the task itself, with the same rows."
            )
        return cls(**values)


def as_rows(data: Any) -> tuple[dict[str, Any], ...]:
    """Own data as a tuple of dicts with plain values; takes dicts or a DataFrame."""
    if hasattr(data, "to_dict") and hasattr(data, "columns"):
        data = data.to_dict("records")
    if isinstance(data, Mapping) or not isinstance(data, Iterable):
        raise ValueError(
            f"dataset is a {type(data).__name__}; give one of {list(DATASETS)}, a list of dicts or "
            "a DataFrame, with a column 'client' and 'question', 'answer' or 'text'."
        )
    rows = tuple(dict(row) for row in data)
    if not rows:
        raise ValueError("dataset has 0 rows; a run needs at least 2 for each client.")
    try:
        return tuple(json.loads(json.dumps(rows, default=_plain)))
    except TypeError as error:
        raise ValueError(f"dataset has a value that JSON can't hold: {error}") from None


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} {value!r}")


def text_columns(task: FederatedTask) -> tuple[str, ...]:
    """The columns that hold the task's text: question and answer, or text."""
    if isinstance(task.dataset, str):
        return DATASETS[task.dataset]
    columns = set.intersection(*(set(row) for row in task.dataset))
    return ("question", "answer") if {"question", "answer"} <= columns else ("text",)


def _check_choices(task: FederatedTask) -> None:
    for name, allowed in CHOICES.items():
        if getattr(task, name) not in allowed:
            raise ValueError(f"{name}={getattr(task, name)!r}; it is one of {list(allowed)}.")
    if not isinstance(task.model, str) or not task.model:
        raise ValueError(f"model={task.model!r}; give a name, a folder or an id.")


def _check_numbers(task: FederatedTask) -> None:
    at_least = {"seed": 0} | {f.name: 1 for f in fields(task) if f.type is int and f.name != "seed"}
    if task.eval_examples is not None:
        at_least["eval_examples"] = 2  # a question alone has no wrong answer beside it
    for name, least in at_least.items():
        value = getattr(task, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name}={value!r}; it is a whole number of at least {least}.")
    for name in ("lr", "lora_scale", "max_update_norm"):
        value = getattr(task, name)
        if value is not None and not (_is_number(value) and math.isfinite(value) and value > 0):
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


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_data(task: FederatedTask) -> None:
    if isinstance(task.dataset, str):
        if task.dataset not in DATASETS:
            raise ValueError(
                f"dataset={task.dataset!r}; it is one of {list(DATASETS)}, or your own rows."
            )
    else:
        needed = {"client", *text_columns(task)}
        for number, row in enumerate(task.dataset):
            if missing := {name for name in needed if not str(row.get(name) or "").strip()}:
                raise ValueError(
                    f"row {number} of dataset has no {sorted(missing)}; each row needs 'client' "
                    "and either 'question' and 'answer', or 'text'."
                )
    if task.model == "minilm" and text_columns(task) == ("text",):
        raise ValueError(
            "model='minilm' is an encoder and learns to find the answer to a question; the data "
            "hold running text. Take 'smollm2-135m', or data with 'question' and 'answer'."
        )
