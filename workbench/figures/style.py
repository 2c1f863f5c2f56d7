"""One set of colours for all figures, and the caption that every figure carries.

Fills are light enough for black labels. Backgrounds are opaque white, so that a figure is legible
in JupyterLab's light and dark theme alike.
"""

import io
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from math import ceil, floor, log10

import matplotlib
import plotly.graph_objects as go
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from workbench.units import human_bytes

#: Colour of each strategy, the same in every figure.
#: Source: Okabe & Ito (2008), "Color Universal Design", safe for the colour-blind.
COLOURS: dict[str, str] = {
    "single": "#7F7F7F",
    "megatron-tp": "#E69F00",
    "megatron-sp": "#D55E00",
    "ulysses": "#0072B2",
    "ring": "#CC79A7",
    "dsp": "#009E73",
}
#: Of strategies that are not in `COLOURS`, such as a reader's own.
OTHER = "#56B4E9"

#: Colour of each kind of collective.
KINDS: dict[str, str] = {
    "all_to_all": "#44AA99",
    "all_gather": "#88CCEE",
    "reduce_scatter": "#DDCC77",
    "all_reduce": "#CC6677",
    "ring_shift": "#AA4499",
}

#: Far from each other (CIE76 above 20 for normal sight and for each kind of colour-blindness, as
#: simulated by Machado et al. 2009), from all colours of strategies, and light enough for labels.
_RANKS = (
    "#9966CC", "#F7DF63", "#73996B", "#B8E6DE", "#2E9999", "#7CF7A5", "#99992E", "#D2ADF7",
)  # fmt: skip

#: An axis of more decades has ticks at the powers of ten alone.
_DECADES = 5
#: Colours of lines, dark enough for a white page. Source: Okabe & Ito (2008), as above.
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#7F7F7F")
INK, PALE, PAPER = "#222222", "#DDDDDD", "#FFFFFF"


def colour_of(strategy: str) -> str:
    """The colour of a strategy by name."""
    return COLOURS.get(strategy, OTHER)


@lru_cache
def rank_colours(p: int) -> tuple[str, ...]:
    """One colour for each of ``p`` ranks; the first eight are the same for every ``p``.

    Examples
    --------
    >>> rank_colours(2), len(set(rank_colours(40)))
    (('#9966CC', '#F7DF63'), 40)
    """
    more = p - len(_RANKS)
    spectrum = matplotlib.colormaps["viridis"]
    return (*_RANKS[:p], *(to_hex(spectrum(i / max(1, more - 1))) for i in range(more)))


def caption(figure: go.Figure | Figure) -> str:
    """The sentence that says what a figure shows, with its numbers; computed with the figure."""
    if isinstance(figure, Figure):
        return figure.get_label()
    return (figure.layout.meta or {}).get("caption", "")


def image(figure: go.Figure | Figure) -> bytes | None:
    """A matplotlib figure as PNG; None for a plotly one, which the browser draws."""
    if not isinstance(figure, Figure):
        return None
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def captioned(figure: go.Figure | Figure, text: str) -> go.Figure | Figure:
    """Give ``figure`` its caption and return it."""
    if isinstance(figure, Figure):
        figure.set_label(text)
    else:
        figure.update_layout(meta={"caption": text})
    return figure


def log_ticks(
    values: Iterable[float], say: Callable[[float], str] = "{:,.12g}".format,
    digits: Sequence[int] = (1, 2, 5),
) -> dict:  # fmt: skip
    """Ticks at these digits times the powers of ten for a logarithmic axis.

    More of them within one power of ten, and at 1 alone over many.

    Examples
    --------
    >>> log_ticks([0.3, 4])["ticktext"]
    ['0.1', '0.2', '0.5', '1', '2', '5', '10', '20', '50']
    """
    values = [value for value in values if value > 0]
    if not values:
        return {}
    decades = range(floor(log10(min(values))), ceil(log10(max(values))) + 1)
    digits = digits if len(decades) <= _DECADES else (1,)
    if len(digits) > 1 and max(values) < 10 * min(values):
        digits = (1, 2, 3, 4, 5, 7)
    return _ticks(decades, digits, say)


def byte_ticks(values: Iterable[int]) -> dict:
    """Ticks at 1, 2 and 5 times the powers of ten for a logarithmic axis of bytes."""
    values = [value for value in values if value]
    if not values:
        return {}
    decades = range(floor(log10(min(values))) - 1, ceil(log10(max(values))) + 1)
    return _ticks(decades, (1, 2, 5), human_bytes)


def _ticks(decades: Iterable[int], digits: Sequence[int], say: Callable[[float], str]) -> dict:
    marks = [digit * 10**decade for decade in decades for digit in digits]
    return {"tickvals": marks, "ticktext": [say(mark) for mark in marks]}


def styled(figure: go.Figure, title: str, **layout) -> go.Figure:
    """Lay a plotly figure out as all of ours are: opaque, quiet, wide enough for its labels."""
    return figure.update_layout(
        template="plotly_white",
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        title={"text": title, "font": {"size": 16, "color": INK}},
        font={"family": "sans-serif", "size": 13, "color": INK},
        margin={"l": 70, "r": 20, "t": 60, "b": 60},
        **layout,
    )
