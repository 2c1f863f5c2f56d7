"""Step through one layer under any strategy."""

import ipywidgets as w

from workbench import figures
from workbench.strategies import STRATEGIES
from workbench.transformer import PRESETS, TransformerSpec
from workbench.widgets.controls import choice, number, with_slider
from workbench.widgets.shown import caption_line


class LayoutPlayer(w.VBox):
    """Who holds which part, step by step; choose the strategy, the ranks and the step.

    Attributes
    ----------
    controls : dict of str to Widget
        ``"strategy"``, ``"p"``, ``"step"``, and ``"model"`` where no spec was given.
    frames : list of Frame
        What is stepped through; empty where the strategy refuses.
    picture : ipywidgets.HTML
        The SVG, or the reason of a refusal.
    caption : ipywidgets.HTML
        What the marks mean, with the walk's numbers.
    """

    def __init__(self, spec: TransformerSpec | None, strategy: str, p: int):
        self.spec, self.frames = spec or PRESETS["toy-video"], []
        self.controls: dict[str, w.Widget] = {}
        if spec is None:
            small = [name for name in PRESETS if name.startswith("toy-")]
            self.controls["model"] = choice("model", small, "toy-video")
        self.controls["strategy"] = choice("strategy", list(STRATEGIES), strategy)
        self.controls["p"] = number("ranks p", p, 1, figures.MOST_RANKS)
        self.controls["step"] = number("step", 1, 1, 1)
        self.picture, self.caption = w.HTML(), w.HTML()
        super().__init__([*map(_shown, self.controls.values()), self.picture, self.caption])
        for name, control in self.controls.items():
            control.observe(self._step if name == "step" else self._walk, "value")
        self._walk()

    def _walk(self, change=None) -> None:
        """Go through the layer anew, from its first step."""
        if "model" in self.controls:
            self.spec = PRESETS[self.controls["model"].value]
        step = self.controls["step"]
        try:
            self.frames = figures.frames_of(
                self.spec, self.controls["strategy"].value, self.controls["p"].value
            )
        except ValueError as error:
            self.frames, self.caption.value = [], ""
            self.picture.value = caption_line(f"Refused: {error}.").value
            return
        step.value, step.max = min(step.value, len(self.frames)), len(self.frames)
        self._step()

    def _step(self, change=None) -> None:
        if self.frames:
            name, step = self.controls["strategy"].value, self.controls["step"].value
            self.picture.value = figures.layout_svg(self.frames, name, step - 1)
            self.caption.value = caption_line(figures.layout_caption(self.frames, name)).value


def _shown(control: w.Widget) -> w.Widget:
    return with_slider(control) if isinstance(control, w.BoundedIntText) else control


def layout_player(
    spec: TransformerSpec | None = None, strategy: str = "dsp", p: int = 4
) -> LayoutPlayer:
    """Step through one layer: who holds which part of the tensor, what is sent.

    Parameters
    ----------
    spec : TransformerSpec or None
        The model; ``None`` lets the reader choose among the toy presets.
    strategy : str
        The one to begin with.
    p : int
        Ranks to begin with, at most 8.
    """
    return LayoutPlayer(spec, strategy, p)
