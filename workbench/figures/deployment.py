"""What a deployment is made of, and what happened in one."""

import re
from collections.abc import Mapping, Sequence
from textwrap import shorten, wrap

import plotly.graph_objects as go

from workbench.figures.federated import WAYS
from workbench.figures.style import INK, OTHER, PALE, captioned, styled
from workbench.units import human_seconds

#: What is told, in words, and its colour.
_TOLD = {
    "round": ("a round", WAYS["federated"]),
    "lost": ("something lost", "#D55E00"),
    "other": ("all else", OTHER),
}
#: Characters of an event in each of two lines beside its dot.
_LINE = 48


def parties(nodes: int) -> go.Figure:
    """Boxes and arrows: which processes there are, and who calls whom.

    Parameters
    ----------
    nodes : int
        SuperNodes, at most 6.
    """
    if not 1 <= nodes <= 6:
        raise ValueError(f"nodes={nodes}; the picture has room for 1 to 6.")
    figure, middle = go.Figure(), (nodes - 1) / 2
    boxes = [("ServerApp", middle, 3, WAYS["federated"]), ("SuperLink", middle, 2, PALE)]
    for i in range(nodes):
        boxes += [(f"SuperNode {i}", i, 1, PALE), (f"ClientApp {i}", i, 0, WAYS["local only"])]
    for name, x, y, colour in boxes:
        figure.add_shape(
            type="rect", x0=x - 0.4, x1=x + 0.4, y0=y - 0.22, y1=y + 0.22, fillcolor=colour,
            line={"color": INK, "width": 1},
        )  # fmt: skip
        figure.add_annotation(x=x, y=y, text=name, showarrow=False)
    arrows = [(middle, 2.78, middle, 2.22)]
    for i in range(nodes):
        arrows += [(i, 1.22, middle, 1.78), (i, 0.78, i, 0.22)]
    for x, y, end_x, end_y in arrows:
        figure.add_annotation(
            x=end_x, y=end_y, ax=x, ay=y, xref="x", yref="y", axref="x", ayref="y",
            showarrow=True, arrowhead=2, arrowcolor=INK, text="",
        )  # fmt: skip
    styled(figure, f"A federation of {nodes} nodes", height=420, showlegend=False)
    figure.update_xaxes(visible=False, range=[-0.6, nodes - 0.4])
    figure.update_yaxes(visible=False, range=[-0.4, 3.4])
    return captioned(
        figure,
        f"{2 + 2 * nodes} programs. Coloured: what we wrote, the same as in the simulation. Grey: "
        f"Flower's own, which carry messages. Each of the {nodes} SuperNodes calls the SuperLink, "
        "never the other way round: a node needs no open door. An arrow: who calls whom; from a "
        "SuperNode to its ClientApp, who starts whom.",
    )


def events(told: Sequence[Mapping[str, object]], source: str) -> go.Figure:
    """What a deployment told, along the time at which it did.

    Parameters
    ----------
    told : sequence of mapping
        ``seconds`` since the start, ``text``, and ``kind``: ``"round"``, ``"lost"``, ``"other"``.
    source : str
        ``"live"``, or that it is recorded, when and where; stands in title and caption.
    """
    figure, last = go.Figure(), max(float(each["seconds"]) for each in told)
    for kind, (name, colour) in _TOLD.items():
        mine = [(i, each) for i, each in enumerate(told) if each["kind"] == kind]
        figure.add_trace(
            go.Scatter(
                x=[each["seconds"] for _, each in mine], y=[i for i, _ in mine], name=name,
                mode="markers+text", marker={"size": 12, "color": colour},
                text=[f"  {_short(str(each['text']))}  " for _, each in mine],
                textposition=[
                    f"middle {'right' if each['seconds'] < last / 2 else 'left'}"
                    for _, each in mine
                ],
                hovertext=[str(each["text"]) for _, each in mine],
                hovertemplate="%{x:.1f} s: %{hovertext}<extra></extra>",
            )
        )  # fmt: skip
    styled(figure, f"What happened ({source})", height=170 + 40 * len(told))
    figure.update_xaxes(title="time since the start [s]", range=[-0.03 * last, 1.03 * last])
    figure.update_yaxes(visible=False, autorange="reversed")
    lost = [str(each["text"]) for each in told if each["kind"] == "lost"]
    rounds = sum(each["kind"] == "round" for each in told)
    said = f" Lost: {'; '.join(lost)}." if lost else " Nothing was lost."
    return captioned(
        figure,
        f"{source[0].upper()}{source[1:]}: {len(told)} events in {human_seconds(last)}, "
        f"{rounds} of them tell of a round.{said}",
    )


def _short(text: str) -> str:
    """At most two lines, with one topic of a client's name and how many more it has."""
    text = re.sub(r"(\S+)((?: \+ \S+)+)", lambda m: f"{m[1]} + {m[2].count(' + ')} topics", text)
    return "<br>  ".join(wrap(shorten(text, 2 * _LINE - 8, placeholder=" …"), _LINE))
