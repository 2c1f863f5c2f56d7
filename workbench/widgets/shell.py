"""What explorers have in common: named controls, a caption, a picture."""

import ipywidgets as w

from workbench.widgets.controls import with_slider
from workbench.widgets.shown import caption_line


class Explorer(w.VBox):
    """Named controls, a caption and a picture; a refusal is shown in the caption's place.

    A subclass says in ``_found`` what is shown for the controls' values: an SVG and a caption.
    """

    def __init__(self, chosen: dict[str, w.Dropdown], sized: dict[str, w.BoundedIntText]):
        self.controls: dict[str, w.Widget] = {**chosen, **sized}
        self.picture, self.caption = w.HTML(), w.HTML()
        sides = [w.VBox([*map(with_slider, sized.values())]), w.VBox([*chosen.values()])]
        super().__init__([w.HBox(sides), self.caption, self.picture])
        for control in self.controls.values():
            control.observe(self._draw, "value")
        self._draw()

    def _draw(self, change=None) -> None:
        value = {name: control.value for name, control in self.controls.items()}
        try:
            self.picture.value, text = self._found(value)
        except ValueError as error:
            self.picture.value, text = "", f"Not possible: {str(error).rstrip('.')}."
        self.caption.value = caption_line(text).value
