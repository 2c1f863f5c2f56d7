"""What a federated run is: one frozen record that every process of the run can read."""

import hashlib
import json
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from workbench.federated.methods.base import Method
from workbench.federated.option import Option
from workbench.federated.options import FAMILIES, as_option
from workbench.federated.options.attack import Attack
from workbench.federated.options.compression import Compression
from workbench.federated.options.defence import Defence
from workbench.federated.options.partition import Partition
from workbench.federated.options.privacy import Privacy
from workbench.federated.options.secure_aggregation import SecAggPlus
from workbench.federated.options.system import System
from workbench.federated.task_checks import as_rows, check_task

#: Learning rates that lowered the loss on validation text most; other models take the last.
LEARNING_RATES = {"minilm": 5e-3, "smollm2-135m": 1e-3, None: 5e-4}
#: For what is not LoRA: customary rates, not tuned. Choose one with ``eval_split="validation"``.
OTHER_RATES = {
    "head": {"minilm": 5e-3, "smollm2-135m": 1e-3, None: 1e-3},
    "prompt": {"minilm": 1e-2, "smollm2-135m": 3e-2, None: 1e-2},
    "prefix": {"smollm2-135m": 1e-2, None: 1e-2},
    "full": {"minilm": 1e-4, "smollm2-135m": 3e-5, None: 3e-5},
}
#: SGD needs larger steps than AdamW on the same adapters. MiniLM's is tuned on validation pairs of
#: skewed clients: 0.3 was best of 0.01 to 0.3, and 0.9 ruined the model.
SGD_FACTORS = {"minilm": 60.0, None: 300.0}


@dataclass(frozen=True, kw_only=True)
class FederatedTask:
    """A federated fine-tuning run.

    Parameters
    ----------
    model : str
        ``"minilm"`` (sentence encoder, 22.7 M parameters), ``"smollm2-135m"`` (generative), or
        the folder or id of any encoder or causal model that transformers can load, or ``"linear"``
        (a classifier of features that rows bring; `workbench.federated.linear`).
    dataset : str or rows
        ``"chatterbot"`` (questions and answers, by topic), ``"sotu"`` (State of the Union, by
        president), or your own rows: dicts or a DataFrame with a column ``client`` and either
        ``question`` and ``answer``, or ``text``, or ``features`` and ``label``. Without a
        column ``split`` a seeded one is made.
    num_clients : int
        Clients; at most as many as the data have natural sources.
    clients_per_round : int
        Clients that train in each round, drawn anew from ``seed``.
    rounds, local_steps, batch_size : int
        Rounds; steps of the optimizer that a client makes in each; rows of a step.
    optimizer : {"adamw", "sgd"}
        Made anew by each client in each round, as in FedAvg.
    lr : float or None
        Learning rate of the clients; ``None`` takes one that was tuned for the model with LoRA, or
        is customary for other kinds of tuning.
    seed : int
        Of the split, the partition, the adapters, the sampling of clients and of batches.
    threads : int
        CPU threads of torch while a client works; bits differ between 1 and 2.
    tune : {"lora", "head", "prompt", "prefix", "full"}
        What is trained and travels: low-rank adapters on the projections that peft chooses for the
        model; the head, which is a causal model's output layer (a copy, where it shares the input's
        matrix), a projection of an encoder's vectors that starts as the identity, or all of
        ``"linear"``; a prompt of virtual tokens before the text; a prefix of keys and values in
        each layer; or all weights.
    start : {"pretrained", "random"}
        ``"random"`` trains the same architecture from its own random weights, drawn from ``seed``;
        it needs ``tune="full"``.
    lora_rank, lora_scale
        Rank r of the adapters; ``lora_scale`` times B A is added to a weight.
    virtual_tokens : int
        Length of a prompt or a prefix.
    min_clients : int
        Fewest valid updates with which a round goes on.
    max_update_norm : float or None
        A larger update is refused; ``None`` is 10 times the round's median, with 3 or more.
    method : Method or str
        How clients train and how updates are joined, such as ``FedProx(mu=0.1)``; the name of a
        class stands for its defaults, in this field and in those below.
    partition, privacy, secure_aggregation, compression, attack, defence, system : optional
        One option of each family of `workbench.federated.options`. Which go together stands in
        `workbench.federated.options.compatible`.
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
    start: str = "pretrained"
    lora_rank: int = 8
    lora_scale: float = 2.0
    virtual_tokens: int = 8
    min_clients: int = 1
    max_update_norm: float | None = None
    method: Method | str | dict[str, Any] = "fedavg"
    partition: Partition | str | dict[str, Any] | None = None
    privacy: Privacy | str | dict[str, Any] | None = None
    secure_aggregation: SecAggPlus | str | dict[str, Any] | None = None
    compression: Compression | str | dict[str, Any] | None = None
    attack: Attack | str | dict[str, Any] | None = None
    defence: Defence | str | dict[str, Any] | None = None
    system: System | str | dict[str, Any] | None = None
    eval_examples: int | None = None
    eval_split: str = "test"

    def __post_init__(self):
        if not isinstance(self.dataset, str):
            object.__setattr__(self, "dataset", as_rows(self.dataset))
        for family in FAMILIES:
            object.__setattr__(self, family, as_option(family, getattr(self, family)))
        check_task(self)

    @property
    def learning_rate(self) -> float:
        """The learning rate in use: ``lr``, or the one tuned for the model and what is trained."""
        if self.lr is not None:
            return self.lr
        rates = OTHER_RATES.get(self.tune, LEARNING_RATES)
        tuned = rates.get(self.model, rates[None])
        larger = SGD_FACTORS.get(self.model, SGD_FACTORS[None])
        return tuned * larger if self.optimizer == "sgd" else tuned

    def to_json(self) -> str:
        """Everything, own rows included, as JSON: it travels to the apps of a simulation."""
        return json.dumps(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Every field as JSON can hold it; an option as its name and its numbers."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {k: v.to_dict() if isinstance(v, Option) else v for k, v in values.items()}

    def like_saved(self, saved: str, folder: Any) -> "FederatedTask":
        """Itself; ValueError if ``saved``, a `public_json`, is another task but for its rounds."""
        theirs, ours = json.loads(saved), json.loads(self.public_json())
        if odd := [name for name in ours if name != "rounds" and theirs.get(name) != ours[name]]:
            raise ValueError(
                f"{str(folder)!r} holds another task's run; it differs in {', '.join(odd)}. Give "
                "the task that was run."
            )
        return self

    def public_json(self) -> str:
        """The same, but own rows are replaced by their number and their SHA-256."""
        values = self.to_dict()
        if not isinstance(self.dataset, str):
            values["dataset"] = {"rows": len(self.dataset), "sha256": self._rows_sha256}
        return json.dumps(values, indent=2)

    @cached_property
    def _rows_sha256(self) -> str:
        text = json.dumps(self.dataset, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

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


@dataclass(frozen=True, eq=False)
class Handed:
    """A task in the run's config of apps in the same process, in place of its JSON."""

    task: FederatedTask


def task_in(config: Any) -> FederatedTask:
    """The task that a run's config holds, as JSON or, within a process, as itself."""
    return config.task if isinstance(config, Handed) else FederatedTask.from_json(str(config))
