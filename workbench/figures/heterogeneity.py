"""Unlike clients: who holds which source, and who answers when on a simulated clock."""

from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from workbench.figures.marks import Picture, Text, rectangle, svg
from workbench.figures.style import INK, PALE, captioned, rank_colours, styled

#: What becomes of a client in a round, and its colour. Source: Okabe & Ito (2008).
OUTCOMES = {
    "used": "#009E73",
    "late": "#E69F00",
    "dropped out": "#D55E00",
    "not available": "#999999",
    "not asked": "#EEEEEE",
}
#: Sources with a colour of their own; the smaller ones share one.
SHOWN, REST = 8, "others"
_LONGEST, _ROW, _LEFT = 560, 24, 96


def holdings_svg(holdings: Sequence[Mapping[str, int]], unit: str = "rows") -> tuple[str, str]:
    """A bar for each client, a colour for each source, as an SVG element; and its caption.

    Parameters
    ----------
    holdings : sequence of mappings
        For each client, source -> its rows of it.
    unit : str
        What a row is.
    """
    colours, longest = _colours(holdings), max(sum(each.values()) for each in holdings)
    page = Picture(_LEFT + _LONGEST + 60, 50 + _ROW * len(holdings))
    x = 6.0
    for name, colour in colours.items():
        page.marks += [rectangle(x, 8, x + 12, 20, colour), Text(x + 16, 14, name, 11, "start")]
        x += 30 + 6.2 * len(name)
    page.width = max(page.width, x)
    for i, each in enumerate(holdings):
        y, left = 34 + _ROW * i, float(_LEFT)
        page.marks.append(Text(_LEFT - 6, y + 9, f"client {i}", 11, "end"))
        for name, rows in _merged(each, colours).items():
            end = left + _LONGEST * rows / longest
            tip = f"client {i}: {rows} {unit} of {name}"
            page.marks.append(rectangle(left, y, end, y + 18, colours[name], tip=tip))
            left = end
        page.marks.append(Text(left + 5, y + 9, f"{sum(each.values())}", 11, "start"))
    text = holdings_caption(holdings, unit)
    return svg(page, text), text


def holdings(held: Sequence[Mapping[str, int]], unit: str = "rows") -> go.Figure:
    """The same as `holdings_svg`, drawn by plotly."""
    colours = _colours(held)
    merged = [_merged(each, colours) for each in held]
    names = [f"client {i}" for i in range(len(held))]
    figure = go.Figure()
    for source, colour in colours.items():
        figure.add_trace(
            go.Bar(
                y=names, x=[each.get(source, 0) for each in merged], name=source,
                orientation="h", marker={"color": colour},
                hovertemplate=f"%{{y}}: %{{x}} {unit} of {source}<extra></extra>",
            )
        )  # fmt: skip
    height = 190 + max(26 * len(held), 20 * len(colours) - 50)  # room for bars, and for names
    styled(figure, "Who holds what", barmode="stack", height=height)
    figure.update_layout(legend={"traceorder": "normal"})
    figure.update_yaxes(autorange="reversed", ticksuffix=" ")
    figure.update_xaxes(title=f"{unit} to train on")
    return captioned(figure, holdings_caption(held, unit))


def holdings_caption(held: Sequence[Mapping[str, int]], unit: str = "rows") -> str:
    """How unequal the clients are, in size and in mixture."""
    sizes = [sum(each.values()) for each in held]
    largest = [max(each.values()) / sum(each.values()) for each in held if each]
    return (
        f"{len(held)} clients hold {min(sizes)} to {max(sizes)} {unit}; the largest has "
        f"{max(sizes) / sum(sizes):.0%} of all. On average {sum(largest) / len(largest):.0%} of a "
        f"client's {unit} are of one source, its largest."
    )


def _colours(held: Sequence[Mapping[str, int]]) -> dict[str, str]:
    total = Counter()
    for each in held:
        total.update(each)
    names = sorted(name for name, _ in total.most_common(SHOWN))  # the same for another seed
    colours = dict(zip(names, rank_colours(SHOWN), strict=False))
    return colours | ({REST: PALE} if len(total) > SHOWN else {})


def _merged(each: Mapping[str, int], colours: Mapping[str, str]) -> dict[str, int]:
    rest = sum(rows for name, rows in each.items() if name not in colours)
    found = {name: each[name] for name in colours if each.get(name)}
    return found | ({REST: rest} if rest else {})


def clock_grid(clock: pd.DataFrame) -> go.Figure:
    """A square for each round and client: what became of it; simulated.

    Parameters
    ----------
    clock : DataFrame
        As `workbench.federated.simulated_clock` makes it.
    """
    order = clock.groupby("client")["speed"].first().sort_values().index.tolist()
    names, figure = list(OUTCOMES), go.Figure()
    table = clock.pivot(index="client", columns="round", values="outcome").loc[order]
    rows = [f"client {client}" for client in order]
    for name, colour in OUTCOMES.items():
        places = [
            (number, row)
            for row, found in zip(rows, table.to_numpy().tolist(), strict=True)
            for number, outcome in zip(table.columns.tolist(), found, strict=True)
            if outcome == name
        ]
        figure.add_trace(
            go.Scatter(
                x=[x for x, _ in places], y=[y for _, y in places], name=name, mode="markers",
                marker={"color": colour, "size": 16, "symbol": "square",
                        "line": {"color": INK, "width": 0.5}},
                hovertemplate=f"%{{y}}, round %{{x}}: {name}<extra></extra>",
            )
        )  # fmt: skip
    title = "Who answers in time (simulated), the slowest client at the bottom"
    styled(figure, title, height=190 + 26 * len(order))
    figure.update_yaxes(categoryorder="array", categoryarray=rows, ticksuffix=" ")
    last = len(table.columns)
    figure.update_xaxes(title="round", dtick=max(1, last // 10), range=[0.2, last + 0.8])
    counts = Counter(clock["outcome"])
    said = ", ".join(f"{name} {counts[name]}" for name in names if counts[name])
    return captioned(figure, f"{len(order)} clients, {last} rounds: {said}.")


def share_used(clock: pd.DataFrame) -> go.Figure:
    """How often each client's update was used, against its speed; simulated."""
    used = (clock["outcome"] == "used").groupby(clock["client"]).mean()
    speed = clock.groupby("client")["speed"].first()
    asked = float((~clock["outcome"].isin(["not asked", "not available"])).mean())
    figure = go.Figure(
        go.Scatter(
            x=speed.tolist(), y=used.tolist(), mode="markers",
            text=[f"client {client}" for client in speed.index],
            marker={"color": OUTCOMES["used"], "size": 12, "line": {"color": INK, "width": 1}},
            hovertemplate="%{text}, speed %{x:.2f}: used in %{y:.0%} of rounds<extra></extra>",
        )
    )  # fmt: skip
    styled(figure, "Who is heard (simulated speeds)", height=360)
    figure.add_hline(y=asked, line={"color": INK, "dash": "dot", "width": 1})
    figure.add_annotation(
        x=0.01, y=asked, xref="paper", text="asked, on average", showarrow=False, yshift=10,
        xanchor="left",
    )  # fmt: skip
    title = "simulated speed, log scale; 1 is the median of the draw"
    figure.update_xaxes(title=title, type="log", tickvals=[0.1, 0.2, 0.5, 1, 2, 5, 10])
    shares = "share of rounds used"
    figure.update_yaxes(title=shares, tickformat=".0%", range=[-0.05, 1.05])
    slow, fast = speed.idxmin(), speed.idxmax()
    never = int((used == 0).sum())
    return captioned(
        figure,
        f"The slowest client is used in {used[slow]:.0%} of the rounds, the fastest in "
        f"{used[fast]:.0%}; {never} of {len(used)} clients are never used. Dotted: how "
        f"often a client is asked, {asked:.0%} of the rounds on average.",
    )
