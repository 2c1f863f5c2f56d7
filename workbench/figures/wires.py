"""Nodes, their cards and the wires between them; and what steps take on them."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.collectives import Collective, crossing_bytes
from workbench.figures.marks import Picture, Text, rectangle, svg
from workbench.figures.style import INK, PALE, captioned, colour_of, rank_colours, styled
from workbench.units import human_bytes, human_seconds
from workbench.wires import WireRow

#: Widths: of a rank's square, between two nodes, and of the widest wire [px].
_RANK, _GAP, _WIRE = 1.0, 2.2, 26
#: Pixels: where a strategy's two bars begin, the longest of them, and their height together.
_LEFT, _BAR, _PAIR = 110, 480, 40


def nodes_and_wires(
    logs: Mapping[str, Sequence[Collective]], nodes: int = 2, ranks_per_node: int = 2
) -> go.Figure:
    """Draw the nodes; under each strategy the wire is as wide as the bytes that pass a card.

    Parameters
    ----------
    logs : mapping
        Strategy -> the log of one rank.
    """
    carried = {name: crossing_bytes(log, nodes, ranks_per_node) for name, log in logs.items()}
    most = max(carried.values()) or 1
    figure, node = go.Figure(), ranks_per_node * _RANK
    span = nodes * node + (nodes - 1) * _GAP
    for row, (name, size) in enumerate(carried.items()):
        y = -1.6 * row
        line = {"color": colour_of(name), "width": max(1, _WIRE * size / most)}
        figure.add_trace(go.Scatter(
            x=[node / 2, span - node / 2], y=[y, y], mode="lines", line=line, showlegend=False,
            hovertemplate=f"{name}: {size:,} B through each card<extra></extra>",
        ))  # fmt: skip
        for i in range(nodes):
            _node(figure, i * (node + _GAP), y, i, ranks_per_node, nodes)
        label = f"<b>{name}</b> {human_bytes(size)}"
        figure.add_annotation(x=span / 2, y=y + 0.62, text=label, showarrow=False)
    styled(figure, f"What leaves a node: {nodes} nodes of {ranks_per_node} ranks, one step",
           height=120 + 90 * len(carried))  # fmt: skip
    figure.update_xaxes(visible=False, range=[-0.3, span + 0.3])
    figure.update_yaxes(visible=False, range=[-1.6 * (len(carried) - 1) - 0.8, 1.0])
    least, largest = (pick(carried, key=carried.get) for pick in (min, max))
    return captioned(
        figure,
        f"A wire is as wide as what passes a node's card in one step: least under {least} "
        f"({human_bytes(carried[least])}), most under {largest} ({human_bytes(carried[largest])}). "
        "What neighbours in one node send each other is not drawn: it passes no card.",
    )


def _node(figure: go.Figure, left: float, y: float, index: int, ranks: int, nodes: int) -> None:
    """A box for the node, a coloured square for each of its ranks."""
    colours = rank_colours(nodes * ranks)
    figure.add_shape(
        type="rect", x0=left - 0.1, x1=left + ranks * _RANK + 0.1, y0=y - 0.5, y1=y + 0.5,
        line={"color": INK}, fillcolor=PALE,
    )  # fmt: skip
    for i in range(ranks):
        rank = index * ranks + i
        x = left + i * _RANK
        figure.add_shape(
            type="rect", x0=x + 0.08, x1=x + 0.92, y0=y - 0.4, y1=y + 0.4,
            line={"width": 0}, fillcolor=colours[rank],
        )  # fmt: skip
        figure.add_annotation(x=x + 0.5, y=y, text=str(rank), showarrow=False)


def wire_times(rows: Sequence[WireRow], source: str = "measured") -> go.Figure:
    """Measured seconds of each step beside what is expected: without wires, then the wires.

    Parameters
    ----------
    rows : sequence of WireRow
        From `workbench.wires.measure` or `recorded`.
    source : {"measured", "recorded"}
        Said in the title: recorded rows were measured on another machine.
    """
    speeds = sorted({row.gbit_per_s for row in rows}, reverse=True)
    coloured = f"{source}, in its strategy's colour"
    titles = [f"{speed:g} Gbit/s" for speed in speeds]
    figure = make_subplots(1, len(speeds), shared_yaxes=True, subplot_titles=titles)
    for column, speed in enumerate(speeds, 1):
        here = [row for row in rows if row.gbit_per_s == speed]
        names = [row.strategy for row in here]
        bars = (
            ("expected: no wires", [row.local_s for row in here], "#BBBBBB", 0),
            ("expected: the wire", [row.wire_s for row in here], "#555555", 0),
            (coloured, [row.seconds for row in here], [colour_of(name) for name in names], 1),
        )
        for label, seconds, colour, place in bars:
            figure.add_trace(go.Bar(
                x=names, y=seconds, name=label, marker_color=colour, offsetgroup=str(place),
                base=[row.local_s for row in here] if label.endswith("wire") else None,
                legendgroup=label, showlegend=column == 1,
                hovertemplate="%{x}: %{y:.3g} s<extra>" + label + "</extra>",
            ), 1, column)  # fmt: skip
    styled(figure, f"A training step on wires, {source}", height=420, barmode="group",
           legend={"orientation": "h", "y": -0.25})  # fmt: skip
    figure.update_yaxes(title="seconds", col=1)
    return captioned(figure, _wires_caption(rows, speeds, source))


def _wires_caption(rows: Sequence[WireRow], speeds: Sequence[float], source: str) -> str:
    said = []
    for speed in (speeds[0], speeds[-1]):
        here = {row.strategy: row for row in rows if row.gbit_per_s == speed}
        first, last = (pick(here.values(), key=lambda row: row.seconds) for pick in (min, max))
        said.append(
            f"at {speed:g} Gbit/s {first.strategy} took {human_seconds(first.seconds)} and "
            f"{last.strategy} {human_seconds(last.seconds)}"
        )
    return (
        f"{source.capitalize()}: {'; '.join(dict.fromkeys(said))}. A coloured bar that ends within "
        "the dark grey part means that some of the sending hid behind computing, or that this "
        "machine computed faster than it did without wires; one below the light grey part, the "
        "latter for certain."
    )


def wires_svg(rows: Sequence[WireRow], ran: Mapping[str, float], label: str = "") -> str:
    """Bars of one speed: grey, what a step needs without wires and then for them; what it took.

    Parameters
    ----------
    rows : sequence of WireRow
        One a strategy; their ``seconds`` are not drawn.
    ran : mapping
        Strategy -> seconds that its step took at this speed; none if it has not run.
    label : str
        Read aloud in the picture's place.
    """
    page = Picture(760, 10 + _PAIR * len(rows))
    scale = _BAR / max([row.expected_s for row in rows] + list(ran.values()))
    for i, row in enumerate(rows):
        y = 6 + _PAIR * i
        middle, end = _LEFT + row.local_s * scale, _LEFT + row.expected_s * scale
        page.marks += [
            Text(_LEFT - 8, y + 16, row.strategy, 12, "end"),
            rectangle(_LEFT, y, middle, y + 14, "#BBBBBB", tip=human_seconds(row.local_s)),
            rectangle(middle, y, end, y + 14, "#555555", tip=human_seconds(row.wire_s)),
            Text(end + 6, y + 8, f"{_said(row)} {human_seconds(row.expected_s)}", 11, "start"),
        ]
        if row.strategy in ran:
            took, colour = ran[row.strategy], colour_of(row.strategy)
            end = _LEFT + took * scale
            page.marks += [rectangle(_LEFT, y + 17, end, y + 31, colour, tip=human_seconds(took)),
                           Text(end + 6, y + 25, human_seconds(took), 11, "start")]  # fmt: skip
    return svg(page, label)


def _said(row: WireRow) -> str:
    return "forecast" if row.local_s else "the wires alone"


def wires_caption(rows: Sequence[WireRow], ran: Mapping[str, float], source: str) -> str:
    """What a step needs at this speed, and what it took where it has run."""
    first, last = (pick(rows, key=lambda row: row.wire_s) for pick in (min, max))
    known = all(row.local_s for row in rows)
    before = (
        "light grey: the step without wires" if known else "what comes before them is not known"
    )
    text = (
        f"At {rows[0].gbit_per_s:.3g} Gbit/s the wires alone need {human_seconds(first.wire_s)} "
        f"for {first.strategy} and {human_seconds(last.wire_s)} for {last.strategy} (dark grey; "
        f"{before})."
    )
    if not ran:
        return text + " Nothing has run at this speed yet."
    fast, slow = (pick(ran, key=ran.get) for pick in (min, max))
    return (
        f"{text} {source.capitalize()} (coloured): {fast} {human_seconds(ran[fast])}, {slow} "
        f"{human_seconds(ran[slow])}."
    )
