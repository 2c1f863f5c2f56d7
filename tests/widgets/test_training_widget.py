"""The bar and the button of a training run."""

from workbench.widgets.training import Progress


def test_the_button_asks_to_stop_and_the_bar_counts():
    progress = Progress(10)
    assert progress(3, 0.5) is False
    assert progress.bar.n == 3
    assert "loss=0.500" in str(progress.bar)
    progress.button.click()
    assert progress.button.disabled
    assert progress(4, 0.4) is True
    progress.bar.close()


def test_after_the_last_step_there_is_nothing_to_stop():
    progress = Progress(2)
    progress(1, 1.0)
    assert not progress.button.disabled
    progress(2, 0.5)
    assert progress.button.disabled
    assert progress(2, 0.5) is False
