"""DSP's schedules of switches over the layers, while sizes and ranks change."""

from dataclasses import replace

import ipywidgets as w

from workbench import figures
from workbench.transformer import PRESETS, TransformerSpec
from workbench.widgets.controls import choice, number, with_slider
from workbench.widgets.shown import caption_line

#: Most ranks, layers and entries of a dim that the controls reach.
MOST = {"p": 16, "layers": 8, "size": 64}


class Schedules(w.VBox):
    """Which dim is cut in which stage, by two schedules below each other.

    Attributes
    ----------
    controls : dict of str to Widget
        ``"p"``, ``"layers"``, one by the name of each dim, ``"schedule"``, ``"against"``,
        ``"first"`` (the dim cut first), and ``"model"`` where no spec was given.
    tables : list of Timetable
        What is shown; empty where DSP refuses.
    picture, caption : ipywidgets.HTML
        The chart; what to see, with its numbers, or the reason why nothing is shown.
    """

    def __init__(self, spec: TransformerSpec | None, p: int):
        self.spec, self.tables = spec or PRESETS["toy-volume"], []
        self.picture, self.caption, self._panel = w.HTML(), w.HTML(), w.HBox()
        self._model = None
        if spec is None:
            small = [name for name in PRESETS if name.startswith("toy-")]
            self._model = choice("model", small, "toy-volume")
            self._model.observe(self._choose, "value")
        super().__init__([self._panel, self.caption, self.picture])
        self._build(p)

    def _choose(self, change) -> None:
        self.spec = PRESETS[change["new"]]
        self._build(self.controls["p"].value)

    def _build(self, p: int) -> None:
        """Make the controls that fit the model's dims."""
        sized = {
            name: number(name, size, 1, max(size, MOST["size"]))
            for name, size in self.spec.dims.items()
        }
        sized["p"] = number("ranks p", p, 2, MOST["p"])
        sized["layers"] = number("layers", min(4, MOST["layers"]), 1, MOST["layers"])
        chosen = {
            "schedule": choice("schedule", list(figures.VARIANTS), "lazy"),
            "against": choice("against", list(figures.VARIANTS), "eager"),
            "first": choice("first cut", ["fewest bytes", *self.spec.dims], "fewest bytes"),
        }
        first = {} if self._model is None else {"model": self._model}
        self.controls: dict[str, w.Widget] = {**first, **sized, **chosen}
        left = w.VBox([*first.values(), *map(with_slider, sized.values())])
        self._panel.children = (left, w.VBox(list(chosen.values())))
        for control in (*sized.values(), *chosen.values()):
            control.observe(self._draw, "value")
        self._draw()

    def _draw(self, change=None) -> None:
        value = {name: control.value for name, control in self.controls.items()}
        dims = {name: value[name] for name in self.spec.dims}
        shard = value["first"] if value["first"] in dims else None
        names = dict.fromkeys((value["schedule"], value["against"]))
        try:
            spec = replace(self.spec, dims=dims, num_layers=value["layers"])
            self.tables = [figures.timetable(spec, name, value["p"], shard) for name in names]
        except ValueError as error:
            self.tables, self.picture.value = [], ""
            self.caption.value = caption_line(f"Not possible: {error}.").value
            return
        self.picture.value = figures.schedule_svg(spec, self.tables)
        text = figures.schedule_caption(spec, self.tables)
        self.caption.value = caption_line(text).value


def schedules(spec: TransformerSpec | None = None, p: int = 4) -> Schedules:
    """Explore which dim DSP cuts in which stage, while sizes, ranks and schedules change.

    Parameters
    ----------
    spec : TransformerSpec or None
        The model to begin with; ``None`` lets the reader choose among the toy presets.
    p : int
        Ranks to begin with.
    """
    return Schedules(spec, p)
