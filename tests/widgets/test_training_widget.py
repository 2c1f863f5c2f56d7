"""The bar and the button of a training run."""

import html
from types import SimpleNamespace

from workbench.widgets import training
from workbench.widgets.training import Progress


def test_the_bar_counts_and_shows_the_loss():
    progress = Progress(10)
    assert progress(3, 0.5) is None
    assert progress.bar.n == 3
    assert "loss=0.500" in str(progress.bar)
    assert progress.button.value == ""  # no server that could interrupt
    progress.bar.close()


def test_the_button_interrupts_this_kernel_until_the_last_step(monkeypatch):
    config = {"IPKernelApp": {"connection_file": "/run/kernel-12ab-34.json"}}
    shell = SimpleNamespace(kernel=SimpleNamespace(config=config))
    monkeypatch.setattr(training, "get_ipython", lambda: shell)
    progress = Progress(2)
    assert "api/kernels/12ab-34/interrupt" in html.unescape(progress.button.value)
    progress(1, 1.0)
    assert "Stop training" in progress.button.value
    progress(2, 0.5)
    assert progress.button.value == ""
