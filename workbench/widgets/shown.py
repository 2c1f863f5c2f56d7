"""A figure on the page with its caption below."""

import base64
import json
from html import escape

import ipywidgets as w
from IPython.display import display

from workbench import figures


def show(figure) -> None:
    """Display a figure and, below it, the sentence that says what to see.

    Parameters
    ----------
    figure : plotly Figure or matplotlib Figure
        As the functions of `workbench.figures` return it.
    """
    text, png = figures.caption(figure), figures.image(figure)
    if png is None:
        # What plotly's own way shows in JupyterLab, without the seconds that its imports take.
        display({"application/vnd.plotly.v1+json": json.loads(figure.to_json())}, raw=True)
    else:
        display(picture(png, text))
    display(caption_line(text))


def picture(png: bytes, text: str) -> w.HTML:
    """An image with its caption as alternative text, which JupyterLab keeps only this way."""
    data = base64.b64encode(png).decode()
    return w.HTML(
        f'<img alt="{escape(text, quote=True)}" style="max-width:100%;background:#fff" '
        f'src="data:image/png;base64,{data}">'
    )


def caption_line(text: str) -> w.HTML:
    """A caption in the theme's own colours."""
    return w.HTML(f'<p role="note" style="line-height:1.4;max-width:60em">{escape(text)}</p>')
