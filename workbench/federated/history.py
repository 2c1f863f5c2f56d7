"""What a federated run leaves: losses and bytes round by round, and an adapter for peft."""

import json
import os
import pathlib
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file

from workbench.federated.linear import is_linear
from workbench.federated.lora import BASE, TASK, Weights, check_saved, load_weights
from workbench.federated.methods.ranked import padded
from workbench.federated.partition import clients_of
from workbench.federated.task import FederatedTask
from workbench.federated.tuning import FILES, write_config

#: Files of a saved history, beside the task and what was trained; clients' own adapters, if any.
RECORD, OWN = "history.json", "personal.safetensors"


@dataclass(frozen=True)
class Evaluation:
    """Held-out loss: of each client, and overall, weighted by the number of predictions.

    Parameters
    ----------
    loss : float
        Mean cross-entropy of a prediction [nat].
    accuracy : float
        Share of predictions whose first choice was right: questions, or tokens.
    clients : dict
        For each client its ``loss``, ``accuracy`` and ``predictions``; a client without held-out
        rows is not in it.
    failed : dict
        Clients that did not answer, and why.
    """

    loss: float
    accuracy: float
    clients: dict[str, dict[str, float]]
    failed: dict[str, str] = field(default_factory=dict)

    @classmethod
    def over(cls, clients: dict[str, dict[str, float]], failed: dict[str, str] | None = None):
        """The evaluation over ``clients``; the mean is NaN if none has a prediction."""
        clients = {name: each for name, each in clients.items() if each["predictions"]}
        total = sum(each["predictions"] for each in clients.values())
        loss, accuracy = (
            sum(each[key] * each["predictions"] for each in clients.values()) / total
            if total
            else float("nan")
            for key in ("loss", "accuracy")
        )
        return cls(loss, accuracy, clients, failed or {})


@dataclass(frozen=True)
class Round:
    """One round: who trained, what it cost, and how good the model is after it.

    Parameters
    ----------
    number : int
        From 1.
    train_loss : float
        Mean over the valid updates, weighted by training rows; over a client's local steps.
    evaluation : Evaluation
        Of the model after the round, on all clients.
    uplink_bytes, downlink_bytes : int
        Flower's own count of the records from and to the clients that train.
    evaluation_bytes : int
        The same for the messages of the evaluation, both ways.
    seconds, evaluation_seconds : float
        Wall time of the whole round, and of the part of it that is evaluation [s].
    trained : dict
        Mean loss of each client whose update was used.
    failed : dict
        Clients that raised or whose update was refused, and why.
    epsilon : float or None
        Privacy spent so far, at the task's delta; `History.privacy` says what it is of.
    restarted : dict
        Clients that had lost what they keep between rounds, and since when.
    key_bytes : int
        Of secure aggregation: keys and shares, both ways, which the two counts above leave out.
    simulated_s : float or None
        How long the round takes on the simulated clock of the task's `System`; not measured.
    """

    number: int
    train_loss: float
    evaluation: Evaluation
    uplink_bytes: int
    downlink_bytes: int
    evaluation_bytes: int
    seconds: float
    evaluation_seconds: float
    trained: dict[str, float]
    failed: dict[str, str]
    epsilon: float | None = None
    restarted: dict[str, str] = field(default_factory=dict)
    key_bytes: int = 0
    simulated_s: float | None = None

    @property
    def eval_loss(self) -> float:
        """Held-out loss over all clients after this round [nat]."""
        return self.evaluation.loss


@dataclass(frozen=True)
class History:
    """A run so far: the task, the pretrained start, the rounds done, what was trained.

    Parameters
    ----------
    weights : dict
        The common adapter after the last round, name -> array.
    base_deltas : dict
        What the method merged into the base, by the name of the weight there.
    personal : dict
        Client -> its own adapter, where the method gives clients one; without those that have not
        trained.
    engine : str
        "messages" where server and clients talked through Flower; "batched" where clients made
        their steps together besides; "vectorised" where all were computed and nothing travelled.
    """

    task: FederatedTask
    start: Evaluation
    rounds: tuple[Round, ...]
    weights: Weights
    base_deltas: Weights = field(default_factory=dict)
    personal: dict[str, Weights] = field(default_factory=dict)
    engine: str = "messages"

    def adapter(self, client: str | int) -> Weights:
        """The adapter that a client uses: its own, or its part of the common one.

        Parameters
        ----------
        client : str or int
            Its name, or its partition id.

        Raises
        ------
        ValueError
            If there is no such client.
        """
        if client in self.personal:
            return self.personal[client]
        names = [each.name for each in clients_of(self.task)]
        index = names.index(client) if client in names else client
        if isinstance(index, str) or not 0 <= index < len(names):
            raise ValueError(
                f"no client is {client!r}; their ids are 0 to {len(names) - 1}, their names {names}"
            )
        if names[index] in self.personal:
            return self.personal[names[index]]
        mine = self.task.method.shared(self.weights, index)
        return {n: padded(mine[n], a.shape) if n in mine else a for n, a in self.weights.items()}

    @property
    def privacy(self) -> str:
        """The privacy spent, and what it is of."""
        if self.task.privacy is None:
            return "no differential privacy"
        spent = self.rounds[-1].epsilon if self.rounds else 0.0
        described = self.task.privacy.describe(self.task)
        return f"epsilon={spent:.4g} at delta={self.task.privacy.delta:g} ({described})"

    def to_frame(self) -> pd.DataFrame:
        """One row a round; round 0 is the pretrained model, which nobody has trained."""
        rows = [{"round": 0, "eval_loss": self.start.loss, "accuracy": self.start.accuracy}]
        for each in self.rounds:
            values = {k: v for k, v in vars(each).items() if isinstance(v, int | float)}
            values |= {"eval_loss": each.eval_loss, "accuracy": each.evaluation.accuracy}
            values |= {"clients": len(each.trained), "failed": len(each.failed)}
            rows.append({"round": values.pop("number")} | values)
        frame = pd.DataFrame(rows)
        frame.attrs["privacy"] = self.privacy  # what the column epsilon is of
        return frame

    def clients_to_frame(self) -> pd.DataFrame:
        """One row for each round and client: held-out loss, training loss, why it failed."""
        rows = []
        for number, evaluation, trained, failed in [
            (0, self.start, {}, {}),
            *((each.number, each.evaluation, each.trained, each.failed) for each in self.rounds),
        ]:
            failed = evaluation.failed | failed
            for name in sorted({*evaluation.clients, *trained, *failed}):
                row = {"round": number, "client": name} | evaluation.clients.get(name, {})
                row |= {"train_loss": trained.get(name), "failed": failed.get(name)}
                rows.append(row)
        return pd.DataFrame(rows)

    def save(
        self,
        path: str | os.PathLike,
        also: Callable[[pathlib.Path], None] | None = None,
    ) -> pathlib.Path:
        """Write what was trained, the tables, and the task; return the folder.

        Adapters, prompts and prefixes are in peft's format; all weights in that of transformers,
        as ``model.safetensors`` with ``config.json``; a head is in ``head.safetensors``.

        The folder gets its name when it is complete; an older history there is replaced. Own rows
        are not written, only their number and checksum. ``also`` may add files of its own.

        Raises
        ------
        ValueError
            If the folder holds other files, or is a file.
        """
        path = pathlib.Path(path)
        if path.exists() and not path.is_dir():
            raise ValueError(f"{path} is a file: give a folder, new or of an older history.")
        if path.exists() and not (path / TASK).exists() and any(path.iterdir()):
            raise ValueError(f"{path} holds something else than a history: give a new folder.")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
        old = path.with_name(f"{path.name}.old-{os.getpid()}")
        partial.mkdir()
        try:
            self._write(partial)
            if also is not None:
                also(partial)
            if path.exists():
                path.rename(old)
            partial.rename(path)
        finally:
            if old.exists() and not path.exists():
                old.rename(path)
            for folder in (partial, old):
                shutil.rmtree(folder, ignore_errors=True)
        return path

    def _write(self, folder: pathlib.Path) -> None:
        if not is_linear(self.task):
            write_config(self.task, folder)
        save_file(self.weights, folder / FILES[self.task.tune], metadata={"format": "pt"})
        if self.base_deltas:
            save_file(self.base_deltas, folder / BASE)
        if self.personal:
            models = enumerate(self.personal.values())
            save_file({f"{i}/{k}": a for i, each in models for k, a in each.items()}, folder / OWN)
        (folder / TASK).write_text(self.task.public_json())
        record = {"start": asdict(self.start), "rounds": [asdict(each) for each in self.rounds]}
        record |= {"personal": list(self.personal), "engine": self.engine}
        (folder / RECORD).write_text(json.dumps(record))
        self.to_frame().to_csv(folder / "rounds.csv", index=False)
        self.clients_to_frame().to_csv(folder / "clients.csv", index=False)

    @classmethod
    def load(cls, path: str | os.PathLike, task: FederatedTask | None = None) -> "History":
        """Read what `save` wrote; ``task`` stands in for the one whose own rows were left out."""
        folder = pathlib.Path(path)
        check_saved(folder, TASK)
        saved, record = (folder / TASK).read_text(), json.loads((folder / RECORD).read_text())
        task = task.like_saved(saved, folder) if task else FederatedTask.from_json(saved)
        rounds = tuple(
            Round(**each | {"evaluation": Evaluation(**each["evaluation"])})
            for each in record["rounds"]
        )
        base = load_file(folder / BASE) if (folder / BASE).exists() else {}
        own = load_file(folder / OWN) if record.get("personal") else {}
        personal = {
            name: {k.removeprefix(f"{i}/"): a for k, a in own.items() if k.startswith(f"{i}/")}
            for i, name in enumerate(record.get("personal", ()))
        }
        arrays, engine = load_weights(folder, task.tune), record.get("engine", "messages")
        return cls(task, Evaluation(**record["start"]), rounds, arrays, base, personal, engine)


def same_weights(one: Weights, other: Weights) -> bool:
    """Whether two adapters are equal to the last bit."""
    return one.keys() == other.keys() and all(
        one[name].tobytes() == np.ascontiguousarray(other[name]).tobytes() for name in one
    )
