"""A figure on the page with its caption below."""

import base64
import io
from html import escape

import ipywidgets as w
from IPython.display import display
from matplotlib.figure import Figure

from workbench import figures


def show(figure) -> None:
    """Display a figure and, below it, the sentence that says what to see.

    Parameters
    ----------
    figure : plotly Figure or matplotlib Figure
        As the functions of `workbench.figures` return it.
    """
    text = figures.caption(figure)
    display(picture(figure, text) if isinstance(figure, Figure) else figure)
    display(caption_line(text))


def picture(figure: Figure, text: str) -> w.HTML:
    """A matplotlib figure as an image whose alternative text is its caption."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    data = base64.b64encode(buffer.getvalue()).decode()
    return w.HTML(
        f'<img alt="{escape(text, quote=True)}" style="max-width:100%;background:#fff" '
        f'src="data:image/png;base64,{data}">'
    )


def caption_line(text: str) -> w.HTML:
    """A caption in the theme's own colours."""
    return w.HTML(f'<p role="note" style="line-height:1.4;max-width:60em">{escape(text)}</p>')
