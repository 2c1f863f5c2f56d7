"""Set the speed of the wires between nodes, see what a step needs, and run it on them."""

from collections.abc import Sequence
from dataclasses import replace

import ipywidgets as w

from workbench import figures
from workbench.box import NoBoxError, missing
from workbench.collectives import crossing_bytes
from workbench.failure import RankError
from workbench.step import fake_step
from workbench.strategies import STRATEGIES
from workbench.transformer import TransformerSpec
from workbench.widgets.controls import beside_slider, choice
from workbench.widgets.shown import caption_line
from workbench.wires import WireRow, as_gloo, measure, recorded

#: Nodes and ranks in each; four ranks in all.
SHAPES = {"2 of 2 ranks": (2, 2), "4 of 1 rank": (4, 1)}
RANKS = 4
#: Speeds to choose from [Gbit/s].
SPEEDS = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)
_PAIRS = "2 of 2 ranks"
#: Steps of which the median is shown.
_REPEATS = 3


class WireExplorer(w.VBox):
    """A slider for the wires' speed, and a button that runs a step of each strategy on them.

    A click blocks until all have run. Where this machine can't make nodes the rows are recorded
    ones, the slider moves their forecast, and the button is off.

    Attributes
    ----------
    speed : Dropdown
        Of each node's card, each way [Gbit/s].
    shape : Dropdown
        How many nodes, and of how many ranks.
    button : Button
        Runs all strategies at that speed.
    took : dict
        (shape, speed) -> strategy -> `WireRow`, of all that has run.
    picture, caption : ipywidgets.HTML
    """

    def __init__(self, spec: TransformerSpec, strategies: Sequence[str], gbit_per_s: float):
        self.spec, self.strategies = spec, list(strategies)
        self.speed = choice("Gbit/s", [(f"{speed:g}", speed) for speed in SPEEDS], gbit_per_s)
        self.shape = choice("nodes", list(SHAPES), _PAIRS)
        self.button = w.Button(description="Run on these wires", layout={"width": "180px"})
        self.picture, self.caption, self.took = w.HTML(), w.HTML(), {}
        self.lacking = missing()
        self._latest = self._nothing_run() if self.lacking is None else self._take_recorded()
        self.button.on_click(lambda _: self.run())
        for control in (self.speed, self.shape):
            control.observe(self._draw, "value")
        line = w.HBox([beside_slider(self.speed), self.shape, self.button])
        super().__init__([line, self.caption, self.picture])
        self._draw()

    def _nothing_run(self) -> dict[str, dict[str, WireRow]]:
        """By shape, what a card carries; no step has taken any time."""
        logs = {name: as_gloo(fake_step(self.spec, name, p=RANKS).log) for name in self.strategies}
        return {
            shape: {name: WireRow(name, self.speed.value, 0.0, 0.0, crossing_bytes(log, *sizes))
                    for name, log in logs.items()}
            for shape, sizes in SHAPES.items()
        }  # fmt: skip

    def _take_recorded(self) -> dict[str, dict[str, WireRow]]:
        rows = recorded()
        self.button.disabled = self.shape.disabled = True
        for row in rows:
            self.took.setdefault((_PAIRS, row.gbit_per_s), {})[row.strategy] = row
        return {_PAIRS: {row.strategy: row for row in rows}}

    def run(self) -> None:
        """Measure each strategy at the speed and shape that are set; what goes wrong is shown."""
        shape, speed = self.shape.value, self.speed.value
        nodes, ranks = SHAPES[shape]
        self.button.disabled = True
        self._say(f"Running {', '.join(self.strategies)} at {speed:g} Gbit/s …")
        how = {"nodes": nodes, "ranks_per_node": ranks, "repeats": _REPEATS}
        try:
            rows = measure(self.spec, self.strategies, [speed], **how)
        except (ValueError, NoBoxError, RankError) as error:
            self._say(f"Not possible: {str(error).rstrip('.')}.")
            return
        finally:
            self.button.disabled = False
        self._latest[shape] = {row.strategy: row for row in rows}
        self.took[shape, speed] = self._latest[shape]
        self._draw()

    def _draw(self, change=None) -> None:
        shape, speed = self.shape.value, self.speed.value
        rows = [replace(row, gbit_per_s=speed) for row in self._latest[shape].values()]
        ran = {name: row.seconds for name, row in self.took.get((shape, speed), {}).items()}
        source = "measured" if self.lacking is None else "recorded"
        text = figures.wires_caption(rows, ran, source)
        if self.lacking is not None:
            text += f" This machine can't run it: {self.lacking}."
        self.picture.value = figures.wires_svg(rows, ran, text)
        self._say(text)

    def _say(self, text: str) -> None:
        self.caption.value = caption_line(text).value


def wire_explorer(
    spec: TransformerSpec, strategies: Sequence[str] | None = None, gbit_per_s: float = 0.3
) -> WireExplorer:
    """Explore what the speed of the wires between nodes does, and run steps on such wires.

    Parameters
    ----------
    spec : TransformerSpec
        A model small enough to run here.
    strategies : sequence of str or None
        Keys of `STRATEGIES`; ``None``: all that communicate.
    gbit_per_s : float
        Speed to begin with [Gbit/s], one of `SPEEDS`.

    Raises
    ------
    ValueError
        If a strategy can't run the model on four ranks, or the speed is another.
    """
    names = [name for name in STRATEGIES if name != "single"] if strategies is None else strategies
    return WireExplorer(spec, names, gbit_per_s)
