"""Compare strategies while dims, heads and ranks change."""

from dataclasses import replace

import ipywidgets as w

from workbench import figures
from workbench.step import DTYPES
from workbench.strategies import STRATEGIES
from workbench.transformer import PRESETS, TransformerSpec
from workbench.widgets.controls import choice, number, with_slider
from workbench.widgets.shown import caption_line

#: Most ranks and samples that the controls reach; a dim goes up to so many times its size.
MOST = {"p": 64, "batch": 32, "times": 8}


class Compare(w.VBox):
    """An explorer of dims, heads, ranks and strategies.

    Attributes
    ----------
    controls : dict of str to Widget
        ``"p"``, ``"batch"``, ``"heads"``, ``"dtype"``, ``"strategy"``, ``"against"``, one by the
        name of each dim, and ``"model"`` where no spec was given.
    comparison : Comparison
        The data that is shown: ``.volumes``, ``.svg``, ``.caption``; None if the sizes can't be.
    picture, caption : ipywidgets.HTML
        Volumes and layouts; what to see, with its numbers, or the reason why nothing is shown.
    """

    def __init__(self, spec: TransformerSpec | None):
        self.spec = spec or PRESETS["toy-video"]
        self.picture, self.caption, self.comparison = w.HTML(), w.HTML(), None
        self._model = choice("model", list(PRESETS), "toy-video") if spec is None else None
        self._panel = w.HBox()
        super().__init__([self._panel, self.caption, self.picture])
        if self._model is not None:
            self._model.observe(self._choose, "value")
        self._build()

    def _choose(self, change) -> None:
        self.spec = PRESETS[change["new"]]
        self._build()

    def _build(self) -> None:
        """Make the controls that fit the model's dims."""
        spec, sized = self.spec, {}
        for name, size in spec.dims.items():
            sized[name] = number(name, size, 1, max(64, MOST["times"] * size))
        sized["p"] = number("ranks p", 4, 1, MOST["p"])
        sized["batch"] = number("batch", spec.batch, 1, max(MOST["batch"], spec.batch))
        chosen = {
            "heads": choice("heads", figures.head_counts(spec), spec.num_heads),
            "dtype": choice("dtype", list(DTYPES), DTYPES[0]),
            "strategy": choice("strategy", list(STRATEGIES), "dsp"),
            "against": choice("against", list(STRATEGIES), "ulysses"),
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
        try:
            spec = replace(self.spec, dims=dims, num_heads=value["heads"], batch=value["batch"])
            chosen = (value["strategy"], value["against"])
            self.comparison = figures.comparison(spec, value["p"], chosen, value["dtype"])
        except ValueError as error:
            self.comparison, self.picture.value = None, ""
            self.caption.value = caption_line(f"Not possible: {error}.").value
            return
        self.picture.value = self.comparison.svg
        self.caption.value = caption_line(self.comparison.caption).value


def compare(spec: TransformerSpec | None = None) -> Compare:
    """Explore volumes and layouts while dims, heads, ranks and strategies change.

    Parameters
    ----------
    spec : TransformerSpec or None
        The model to begin with; ``None`` lets the reader choose among the presets.
    """
    return Compare(spec)
