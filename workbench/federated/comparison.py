"""Several runs side by side, from their records."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from workbench.federated.run_record import RunRecord, read

#: What the rounds of a run add up to.
SUMMED = ("uplink_bytes", "downlink_bytes", "seconds")


@dataclass(frozen=True)
class Comparison:
    """Runs beside each other.

    Parameters
    ----------
    table : pandas.DataFrame
        A row a run: the settings in which the runs differ, its rounds, the held-out loss at the
        start, at the end and at its best [nat], what was sent in all [B], its time [s] and the
        privacy spent.
    curves : dict
        Run -> one row a round: ``eval_loss``, ``train_loss``, ``accuracy``, and, added up since
        the start, ``uplink_bytes``, ``downlink_bytes`` and ``seconds``; for
        `workbench.figures.runs.run_curves`.
    """

    table: pd.DataFrame
    curves: dict[str, pd.DataFrame]


def compare_runs(paths: str | os.PathLike | Sequence[str | os.PathLike]) -> Comparison:
    """Read the records of runs, each from its ``run_dir``, and lay them side by side.

    Raises
    ------
    ValueError
        If no path is given, or one of them holds no run's record.
    """
    paths = [paths] if isinstance(paths, str | os.PathLike) else paths
    if not paths:
        raise ValueError("compare_runs got 0 paths; give the run_dir of at least one run.")
    runs = [read(path) for path in paths]
    names = _names(runs)
    settings = [{k: _short(v) for k, v in run.task.items()} for run in runs]
    varied = [key for key in settings[0] if len({mine.get(key) for mine in settings}) > 1]
    curves = {name: _curve(run) for name, run in zip(names, runs, strict=True)}
    rows = [
        {"run": name} | {key: mine.get(key) for key in varied} | _summary(curve)
        for mine, (name, curve) in zip(settings, curves.items(), strict=True)
    ]
    return Comparison(pd.DataFrame(rows), curves)


def _names(runs: Sequence[RunRecord]) -> list[str]:
    """The folders' names, each told apart from equal ones before it by a number."""
    names: list[str] = []
    for run in runs:
        name, number = run.name, 1
        while name in names:
            number += 1
            name = f"{run.name} ({number})"
        names.append(name)
    return names


def _short(value: Any) -> Any:
    """A setting in a cell; an option as it would be written.

    Examples
    --------
    >>> _short({"name": "fedprox", "mu": 0.1, "weighting": "examples"})
    "fedprox(mu=0.1, weighting='examples')"
    """
    if not isinstance(value, dict):
        return value
    numbers = ", ".join(f"{k}={v!r}" for k, v in value.items() if k != "name")
    return f"{value.get('name', 'own rows')}({numbers})"


def _curve(run: RunRecord) -> pd.DataFrame:
    frame = pd.DataFrame([{k: v for k, v in line.items() if k != "clients"} for line in run.lines])
    for key in (*SUMMED, "train_loss", "epsilon"):
        if key not in frame:
            frame[key] = float("nan")
    frame[list(SUMMED)] = frame[list(SUMMED)].fillna(0).cumsum()
    shown = ["round", "eval_loss", "train_loss", "accuracy", *SUMMED, "epsilon"]
    return frame[shown].astype(dict.fromkeys(shown[1:], float))


def _summary(curve: pd.DataFrame) -> dict[str, Any]:
    last, losses = curve.iloc[-1], curve["eval_loss"]
    totals = {key: last[key] if key == "seconds" else int(last[key]) for key in SUMMED}
    return {
        "rounds": int(last["round"]),
        "loss at start": losses.iloc[0],
        "loss at end": losses.iloc[-1],
        "best loss": losses.min(),
        **totals,
        "epsilon": last["epsilon"],
    }
