"""Watch a training run and stop it."""

import ipywidgets as w
from IPython.display import display
from tqdm.auto import tqdm


class Progress:
    """A bar and a button to stop, for ``train(..., on_step=Progress(steps))``.

    The button works while the cell runs where the notebook gives widgets a thread of their own
    (JupyterLab 4.4 with ipykernel 7, or newer). Elsewhere, interrupting the kernel ends the run;
    what came before the last checkpoint is kept.

    Attributes
    ----------
    button : ipywidgets.Button
        Asks to stop.
    """

    def __init__(self, steps: int):
        self.button = w.Button(
            description="Stop training", icon="stop",
            tooltip="All ranks stop after the same step; what was trained is kept",
        )  # fmt: skip
        self.button.on_click(self._stop)
        self._asked = False
        display(self.button)
        self.bar = tqdm(total=steps, unit="step")

    def __call__(self, step: int, loss: float) -> bool:
        """Show a step; True once the button was pressed."""
        self.bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        self.bar.update(step - self.bar.n)
        if step == self.bar.total:
            self.bar.close()
            self.button.disabled = True
        return self._asked

    def _stop(self, button: w.Button) -> None:
        self._asked = self.button.disabled = True
