"""Watch a federated run live, and stop it so that it can go on."""

import os
import pathlib
import signal
import time
from collections.abc import Mapping
from html import escape
from typing import Any

import ipywidgets as w
from IPython.display import display

from workbench.figures.runs import live_svg
from workbench.units import human_bytes, human_seconds
from workbench.widgets.shown import caption_line
from workbench.widgets.training import kernel_id, stop_button

#: Clients that the table shows at most, those with the highest loss first.
MOST_CLIENTS = 12
#: The picture of answers is drawn anew no more often than this [s].
PAUSE_S = 0.1
#: The engine that keeps no rounds.
_WITHOUT_ROUNDS = "vectorised"
_TIP = "Stops within the step; the rounds that are done are kept, and the run can go on"


class Dashboard(w.VBox):
    """A federated run as it goes: ``history = Dashboard().run(task)``.

    The button interrupts the kernel, as Jupyter's own does; it works in JupyterLab and Notebook 7,
    elsewhere use the interrupt that the notebook offers. The run then stops within the step that
    is being made, and `run` returns the rounds that are done. To go on, to the same bits, call
    `run` again with the same ``run_dir``.

    Attributes
    ----------
    head, sums, picture, table, button, caption : ipywidgets.HTML
        What is done now and for how long; bytes and epsilon; the losses; the clients; stop.
    bar : ipywidgets.IntProgress
        Clients' answers.
    run_dir : pathlib.Path
        Where the run is left; set by `run`.
    """

    def __init__(self):
        self.head, self.sums, self.picture = w.HTML(), w.HTML(), w.HTML()
        self.table, self.button, self.caption = w.HTML(), w.HTML(), w.HTML()
        self.bar = w.IntProgress(layout={"width": "400px"})
        self.run_dir: pathlib.Path | None = None
        self._drawn_s = self._round_s = 0.0
        self._told: dict[str, dict[str, float]] = {}
        top = w.HBox([self.bar, self.button])
        super().__init__([self.head, top, self.sums, self.picture, self.caption, self.table])

    def run(
        self,
        task: Any,
        run_dir: str | os.PathLike | None = None,
        engine: str = "in-process",
        strict: bool = False,
    ) -> Any:
        """Show the dashboard and run the task; return its `History`, or what is done of it.

        Parameters
        ----------
        task : FederatedTask
            What to run.
        run_dir : path, optional
            As in `simulate`; a new one in ``runs`` if none is given.
        engine, strict
            As in `simulate`.

        Raises
        ------
        KeyboardInterrupt
            If the run was stopped before the pretrained start was evaluated.
        """
        new = run_dir is None and engine != _WITHOUT_ROUNDS
        self.run_dir = _new_folder(task) if new else run_dir and pathlib.Path(run_dir)
        display(self)
        try:
            return _simulated(task, engine, self.run_dir, self, strict)
        except KeyboardInterrupt:
            left = self.run_dir and _left(self.run_dir, task)
            if left is None:
                raise
            self._head(f"Stopped after round {len(left.rounds)} of {task.rounds}.")
            self.caption.value = caption_line(
                f"To go on: run(task, run_dir={str(self.run_dir)!r})."
            ).value
            return left
        finally:
            self.button.value = ""
            if new and not any(self.run_dir.iterdir()):
                self.run_dir.rmdir()  # refused before anything was kept

    def stop(self) -> None:
        """What the button does, from Python: interrupt, as Ctrl-C does."""
        signal.raise_signal(signal.SIGINT)

    # The hooks of `workbench.federated.Watch`.

    def begin(self, task: Any) -> None:
        """Show that the run begins."""
        self.task = task
        self._session: list[float] = []  # seconds of the rounds made since
        self._seen: int | None = None
        self.bar.max, self.bar.value = _messages(task, task.rounds), 0
        self.button.value = stop_button(kernel_id(), "Stop the run", _TIP)
        self._head("Clients join.")

    def doing(self, number: int, text: str) -> None:
        """Show which round it is."""
        self._stage = f"Round {number} of {self.task.rounds}: {text}" if number else text
        self._round_s = time.monotonic()
        self._head(f"{self._stage}.", self._left(number))

    def answered(self, client: str, metrics: Mapping[str, Any]) -> None:
        """Count an answer; a client that has trained tells its loss."""
        self._answers += 1
        if "train_loss" in metrics:
            self._told.setdefault(client, {})["train_loss"] = metrics["train_loss"]
        if time.monotonic() - self._drawn_s > PAUSE_S:
            self._drawn_s = time.monotonic()
            self.bar.value = self._answers
            self._draw_table()

    def evaluated(self, history: Any) -> None:
        """Draw the losses, the sums and the clients after a round."""
        done = len(history.rounds)
        if self._seen is not None:
            self._session += [each.seconds for each in history.rounds[self._seen :]]
        self._seen, self._answers = done, _messages(self.task, done)
        self.bar.value = self._answers
        losses = [history.start.loss, *(each.eval_loss for each in history.rounds)]
        self.picture.value, text = live_svg(losses, self.task.rounds)
        self.caption.value = caption_line(text).value
        self.sums.value = _sums(history)
        self._clients(history)
        self._head(f"Round {done} of {self.task.rounds} is done.", self._left(done + 1))

    def end(self) -> None:
        """Show that nothing goes on."""
        self.button.value = ""

    _answers = 0

    def _left(self, number: int) -> str:
        """How long it takes yet, by the mean of the rounds made since the run (re)started."""
        rounds = self.task.rounds - number + 1
        if not self._session or rounds < 1:
            return ""
        return f"about {human_seconds(rounds * sum(self._session) / len(self._session))} left"

    def _head(self, text: str, more: str = "") -> None:
        self.head.value = f'<p role="status"><b>{escape(text)}</b> {escape(more)}</p>'

    def _clients(self, history: Any) -> None:
        last = history.rounds[-1] if history.rounds else None
        evaluation = last.evaluation if last else history.start
        self._told = {}
        for name, numbers in evaluation.clients.items():
            start = history.start.clients.get(name, {}).get("loss")
            change = {} if start is None else {"change": numbers["loss"] - start}
            self._told[name] = {"eval_loss": numbers["loss"], **change}
        for name, loss in (last.trained if last else {}).items():
            self._told.setdefault(name, {})["train_loss"] = loss
        self._failed = {**evaluation.failed, **(last.failed if last else {})}
        self._draw_table()

    _failed: Mapping[str, str] = {}

    def _draw_table(self) -> None:
        names = sorted(
            {*self._told, *self._failed},
            key=lambda name: -self._told.get(name, {}).get("eval_loss", float("inf")),
        )
        rows = "".join(
            _row(name, self._told.get(name, {}), self._failed.get(name, ""))
            for name in names[:MOST_CLIENTS]
        )
        more = len(names) - MOST_CLIENTS
        below = f"<p>and {more} more clients, with lower losses</p>" if more > 0 else ""
        cells = ("client", "training loss", "held-out loss", "since the start", "left out because")
        heads = "".join(f"<th scope='col' style='padding:0 8px'>{cell}</th>" for cell in cells)
        self.table.value = f"<table><tr>{heads}</tr>{rows}</table>{below}" if rows else ""


def _row(name: str, numbers: Mapping[str, float], failed: str) -> str:
    shown = [
        f"{numbers[key]:{form}}" if key in numbers else ""
        for key, form in (("train_loss", ".3f"), ("eval_loss", ".3f"), ("change", "+.3f"))
    ]
    cells = [escape(name), *shown, escape(failed)]
    return "<tr>" + "".join(f"<td style='padding:0 8px'>{cell}</td>" for cell in cells) + "</tr>"


def _sums(history: Any) -> str:
    up, down = (
        human_bytes(sum(getattr(each, f"{way}_bytes") for each in history.rounds))
        for way in ("uplink", "downlink")
    )
    return f"<p>Sent in training: {up} up, {down} down. Privacy: {escape(history.privacy)}.</p>"


def _new_folder(task: Any) -> pathlib.Path:
    from workbench.federated import new_run_dir

    return new_run_dir(task)


def _simulated(
    task: Any, engine: str, run_dir: pathlib.Path | None, watch: Any, strict: bool
) -> Any:
    from workbench.federated import simulate

    return simulate(task, engine, run_dir, progress=watch, strict=strict)


def _left(run_dir: pathlib.Path, task: Any) -> Any:
    """The history of the rounds that are done; None if there is none yet."""
    from workbench.federated.simulation import reached

    return reached(task, run_dir)


def _messages(task: Any, rounds: int) -> int:
    from workbench.federated.progress import messages

    return messages(task, rounds)
