"""A deployment with faults, as recorded elsewhere: read it, or keep a new record."""

import json
import pathlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

#: What `recorded_deployment` reads: written by ``python benchmarks/deployment.py --record``.
_RECORDED = pathlib.Path(__file__).parents[1] / "recorded_deployment.json"


@dataclass(frozen=True)
class Fault:
    """One deployment in which something was killed on purpose.

    Parameters
    ----------
    killed : str
        What was killed, and when.
    events : list of dict
        ``seconds`` since the start, ``text``, and ``kind``: "round", "lost" or "other".
    rounds : list of dict
        ``number``, ``seconds``, ``eval_loss``, ``trained`` and ``failed`` of each round.
    error : str
        What ended the first run, if it was ended.
    same_bits : bool
        Whether the final weights were those of a simulation with the same faults, bit for bit.
    """

    killed: str
    events: list[dict[str, Any]]
    rounds: list[dict[str, Any]]
    error: str
    same_bits: bool


@dataclass(frozen=True)
class RecordedDeployment:
    """Deployments with faults, with when, on what and by which versions they were made."""

    date: str
    machine: dict[str, str]
    task: dict[str, Any]
    faults: list[Fault]

    @property
    def source(self) -> str:
        """A few words for figures: that it is recorded, when, and by which Flower."""
        return f"recorded on {self.date}, Flower {self.machine['flwr']}"


def recorded_deployment() -> RecordedDeployment:
    """The committed record."""
    kept = json.loads(_RECORDED.read_text())
    faults = [Fault(**each) for each in kept.pop("faults")]
    return RecordedDeployment(**kept, faults=faults)


def keep(
    date: str, machine: dict[str, str], task: dict[str, Any], faults: Sequence[Fault]
) -> pathlib.Path:
    """Replace the committed record."""
    record = RecordedDeployment(date, machine, task, list(faults))
    _RECORDED.write_text(json.dumps(asdict(record), indent=1) + "\n")
    return _RECORDED


def kind_of(text: str) -> str:
    """What a line of a deployment tells of.

    Examples
    --------
    >>> [kind_of(t) for t in ("round 1 of 2: ..", "SuperNode 1 ended (exit code -9)", "joined")]
    ['round', 'lost', 'other']
    """
    if text.startswith("round "):
        return "round"
    return "lost" if " ended " in text or "killed" in text else "other"
