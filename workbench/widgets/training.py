"""Watch a training run and stop it."""

from html import escape
from pathlib import Path

import ipywidgets as w
from IPython import get_ipython
from IPython.display import display
from tqdm.auto import tqdm

#: Asks the server, not the kernel: a kernel that runs a cell does not hear of a click.
_INTERRUPT = """
const page = JSON.parse(document.getElementById('jupyter-config-data').textContent);
const cookie = document.cookie.match(/_xsrf=([^;]*)/);
const headers = {'X-XSRFToken': cookie ? cookie[1] : ''};
if (page.token) headers.Authorization = 'token ' + page.token;
fetch(page.baseUrl + 'api/kernels/KERNEL/interrupt', {method: 'POST', headers});
this.disabled = true;
"""
_TIP = "All ranks stop after the same step; what was trained is kept"


class Progress:
    """A bar and a button to stop, for ``train(..., on_step=Progress(steps))``.

    The button interrupts the kernel, as Jupyter's own does, and `train` then stops its ranks. It
    works in JupyterLab and Notebook 7; elsewhere, use the interrupt that the notebook offers.

    Attributes
    ----------
    button : ipywidgets.HTML
        Gone after the last step.
    """

    def __init__(self, steps: int):
        self.button = w.HTML(stop_button(kernel_id(), "Stop training", _TIP))
        display(self.button)
        self.bar = tqdm(total=steps, unit="step")

    def __call__(self, step: int, loss: float) -> None:
        """Show a step."""
        self.bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        self.bar.update(step - self.bar.n)
        if step == self.bar.total:
            self.bar.close()
            self.button.value = ""


def kernel_id() -> str | None:
    """The id by which a Jupyter server knows this kernel; None outside of one."""
    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is None:
        return None
    return Path(kernel.config["IPKernelApp"]["connection_file"]).stem.removeprefix("kernel-")


def stop_button(kernel: str | None, words: str, tip: str) -> str:
    """A button that interrupts the kernel of that id; nothing without one."""
    if kernel is None:
        return ""
    action = escape(_INTERRUPT.replace("KERNEL", kernel), quote=True)
    return f'<button title="{tip}" onclick="{action}">{words}</button>'
