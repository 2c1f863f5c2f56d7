"""What checkpointing and accumulation save and cost, while ranks and sizes change."""

from dataclasses import replace

import ipywidgets as w

from workbench import figures
from workbench.closed_form import CHECKPOINTS, SWITCHES
from workbench.memory import AtPeak, at_peak
from workbench.strategies import STRATEGIES
from workbench.transformer import TransformerSpec
from workbench.widgets.controls import choice, number, with_slider
from workbench.widgets.shown import caption_line

#: Most ranks, samples, parts, layers and entries of a dim that the controls reach.
MOST = {"ranks p": 16, "batch": 16, "accumulate": 16, "layers": 4, "size": 128}


class MemoryExplorer(w.VBox):
    """The peak of one rank: as chosen, beside the same strategy that keeps everything.

    Attributes
    ----------
    controls : dict of str to Widget
        One by the name of each dim, ``"layers"``, ``"batch"``, ``"p"``, ``"accumulate"``,
        ``"strategy"``, ``"checkpoint"``, ``"switch"``.
    rows : dict of str to AtPeak
        What is shown; empty where it can't be.
    picture, caption : ipywidgets.HTML
        The bars; what to see, with its numbers, or the reason why nothing is shown.
    """

    def __init__(self, spec: TransformerSpec, p: int):
        self.spec, self.rows = spec, {}
        self.picture, self.caption = w.HTML(), w.HTML()
        sized = {n: number(n, size, 1, MOST["size"]) for n, size in spec.dims.items()}
        sized["layers"] = number("layers", spec.num_layers, 1, MOST["layers"])
        sized["batch"] = number("batch", spec.batch, 1, MOST["batch"])
        sized["p"] = number("ranks p", p, 1, MOST["ranks p"])
        sized["accumulate"] = number("accumulate", 1, 1, MOST["accumulate"])
        chosen = {
            "strategy": choice("strategy", list(STRATEGIES), "dsp"),
            "checkpoint": choice("checkpoint", list(CHECKPOINTS), "block"),
            "switch": choice("switch", list(SWITCHES), SWITCHES[0]),
        }
        self.controls: dict[str, w.Widget] = {**sized, **chosen}
        panel = w.HBox([w.VBox(list(map(with_slider, sized.values()))), w.VBox([*chosen.values()])])
        super().__init__([panel, self.caption, self.picture])
        for control in self.controls.values():
            control.observe(self._draw, "value")
        self._draw()

    def _draw(self, change=None) -> None:
        value = {name: control.value for name, control in self.controls.items()}
        try:
            self.rows = self._found(value)
        except ValueError as error:
            self.rows, self.picture.value = {}, ""
            self.caption.value = caption_line(f"Not possible: {error}.").value
            return
        self.picture.value = figures.memory_svg(self.rows)
        self.caption.value = caption_line(figures.memory_caption(self.rows)).value

    def _found(self, value: dict) -> dict[str, AtPeak]:
        dims = {name: value[name] for name in self.spec.dims}
        spec = replace(self.spec, dims=dims, num_layers=value["layers"], batch=value["batch"])
        chosen = {name: value[name] for name in ("checkpoint", "switch", "accumulate")}
        return {
            "keeps everything": at_peak(spec, value["strategy"], p=value["p"]),
            "as chosen": at_peak(spec, value["strategy"], p=value["p"], **chosen),
        }


def memory(spec: TransformerSpec, p: int = 4) -> MemoryExplorer:
    """Explore what one rank holds, sends and computes while memory is traded for work.

    Parameters
    ----------
    spec : TransformerSpec
        The model to begin with; a small one, as each change fakes two steps.
    p : int
        Ranks to begin with.
    """
    return MemoryExplorer(spec, p)
