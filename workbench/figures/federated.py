"""What a federated run says: who holds how much, how the loss falls, who gains, what travels."""

from collections.abc import Iterable, Mapping, Sequence
from math import floor, isfinite, log10
from statistics import fmean

import plotly.graph_objects as go

from workbench.figures.marks import Picture, Text, rectangle, svg
from workbench.figures.style import OTHER, PALE, captioned, styled
from workbench.units import human_bytes

#: Colour of each way to train, the same in every figure.
#: Source: Okabe & Ito (2008), as for the strategies.
WAYS: dict[str, str] = {
    "pretrained": "#7F7F7F",
    "federated": "#009E73",
    "centralised": "#0072B2",
    "local only": "#E69F00",
    "pooled": "#0072B2",  # centralised, in other words
    "alone": "#E69F00",  # local only
}
#: Pixels of the longest bar, and of one row, of the picture of the traffic.
_LONGEST, _ROW = 420, 30


def client_sizes(clients: Mapping[str, Mapping[str, int]], unit: str = "rows") -> go.Figure:
    """Bars of how much each client holds, the largest on top.

    Parameters
    ----------
    clients : mapping
        Client -> part, such as ``"train"`` and ``"held out"`` -> its number of rows.
    unit : str
        What a row is.
    """
    names = sorted(clients, key=lambda name: sum(clients[name].values()))
    parts = list(dict.fromkeys(part for name in names for part in clients[name]))
    figure = go.Figure()
    for part, colour in zip(parts, (WAYS["federated"], OTHER, PALE), strict=False):
        counts = [clients[name].get(part, 0) for name in names]
        figure.add_trace(_across(names, counts, part, colour, f"%{{x}} {unit}"))
    styled(figure, f"What each client holds: {len(names)} clients", barmode="stack")
    _rows_of(figure, len(names), unit)
    return captioned(figure, _sizes_caption(clients, parts[0], unit))


def _sizes_caption(clients, part, unit) -> str:
    counts = {name: each.get(part, 0) for name, each in clients.items()}
    most, least = max(counts, key=counts.get), min(counts, key=counts.get)
    return (
        f"{len(counts)} clients hold {sum(counts.values()):,} {unit} to {part} on. The largest, "
        f"{most}, has {counts[most] / sum(counts.values()):.0%} of them; the smallest, {least}, "
        f"has {counts[least]:,}. No client sees another's."
    )


def loss_rounds(
    runs: Mapping[str, Sequence[Sequence[float]]], steps_per_round: int | None = None
) -> go.Figure:
    """Held-out loss round by round: a thin line a seed, a thick one for their mean.

    Parameters
    ----------
    runs : mapping
        Way to train -> for each seed the losses [nat]: of the pretrained start, then after each
        round. One that has no rounds gives its start and its end only.
    steps_per_round : int or None
        Steps that all clients make together in a round; shown beside the rounds.
    """
    figure, last = go.Figure(), max(len(losses) for seeds in runs.values() for losses in seeds) - 1
    start = fmean(losses[0] for seeds in runs.values() for losses in seeds)
    figure.add_hline(y=start, line={"color": WAYS["pretrained"], "dash": "dot"})
    figure.add_annotation(x=last, y=start, text="pretrained", showarrow=False, yshift=9)
    for way, seeds in runs.items():
        mean = [fmean(losses) for losses in zip(*seeds, strict=True)]
        for losses in [*seeds, mean]:
            figure.add_trace(_loss_line(way, losses, last, thick=losses is mean))
    title = "Held-out loss" + (f", {steps_per_round} steps a round" if steps_per_round else "")
    styled(figure, title, height=430)
    figure.update_xaxes(title="round", dtick=max(1, last // 10))
    figure.update_yaxes(title="held-out loss [nat], lower is better")
    return captioned(figure, _losses_caption(runs, start))


def _loss_line(way: str, losses: Sequence[float], last: int, thick: bool) -> go.Scatter:
    ends = len(losses) == 2 < last + 1
    return go.Scatter(
        x=[0, last] if ends else list(range(len(losses))), y=list(losses), name=way,
        mode="lines+markers" if thick else "lines", showlegend=thick,
        hovertemplate=f"{way}, round %{{x}}: %{{y:.3f}} nat<extra></extra>",
        line={"color": WAYS.get(way, OTHER), "width": 3 if thick else 1,
              "dash": "dash" if ends else "solid"},
        opacity=1 if thick else 0.5,
    )  # fmt: skip


def _losses_caption(runs, start) -> str:
    ends = {way: fmean(losses[-1] for losses in seeds) for way, seeds in runs.items()}
    said = ", ".join(f"{way} {loss:.3f}" for way, loss in sorted(ends.items(), key=lambda e: e[1]))
    seeds = len(next(iter(runs.values())))
    lengths = {len(losses) for each in runs.values() for losses in each}
    dashed = "; dashed: start and end only" if min(lengths) == 2 < max(lengths) else ""
    return (
        f"The pretrained model starts at {start:.3f} nat. After the last round, lowest first: "
        f"{said}. "
        + (f"Thick: the mean over {seeds} seeds; thin: each seed" if seeds > 1 else "One seed")
        + f"{dashed}."
    )


def client_gains(start: Mapping[str, float], after: Mapping[str, Mapping[str, float]]) -> go.Figure:
    """Bars of how far each client's own held-out loss fell.

    Parameters
    ----------
    start : mapping
        Client -> loss of the pretrained model [nat].
    after : mapping
        Way to train -> client -> loss after it [nat].
    """
    gains = {way: {c: start[c] - losses[c] for c in start} for way, losses in after.items()}
    first = next(iter(gains))
    names = sorted(start, key=lambda name: gains[first][name])
    figure = go.Figure()
    for way, each in gains.items():
        colour, values = WAYS.get(way, OTHER), [each[name] for name in names]
        figure.add_trace(_across(names, values, way, colour, "%{x:+.3f} nat"))
    figure.add_vline(x=0, line={"color": WAYS["pretrained"]})
    styled(figure, "What each client gained", barmode="group")
    _rows_of(figure, len(names) * len(gains), "fall of the held-out loss [nat], right is better")
    figure.update_layout(legend={"traceorder": "reversed"})  # as the bars lie, from top to bottom
    return captioned(figure, " ".join(_gain_sentence(way, each) for way, each in gains.items()))


def _gain_sentence(way: str, gains: Mapping[str, float]) -> str:
    better = sum(gain > 0 for gain in gains.values())
    worst, best = min(gains, key=gains.get), max(gains, key=gains.get)
    return (
        f"{way}: {better} of {len(gains)} clients gained; most {best} ({gains[best]:+.3f} nat), "
        f"least {worst} ({gains[worst]:+.3f} nat)."
    )


def paired_differences(
    differences: Mapping[str, Sequence[float]],
    intervals: Mapping[str, tuple[float, float]] | None = None,
    against: str = "pretrained",
    colours: Mapping[str, str] = WAYS,
) -> go.Figure:
    """Points, one a seed: how much lower the loss is than that of the same seed's other run.

    Parameters
    ----------
    differences : mapping
        What is compared -> for each seed its loss minus the other's [nat]; below 0 is better.
    intervals : mapping or None
        The same names -> a confidence interval of the mean, drawn as a bar.
    against : str
        The other run.
    colours : mapping
        What is compared -> its colour.
    """
    figure, intervals = go.Figure(), intervals or {}
    for way, values in differences.items():
        colour = colours.get(way, OTHER)
        if way in intervals:
            low, high = intervals[way]
            figure.add_trace(
                go.Scatter(
                    x=[low, high], y=[way, way], mode="lines", opacity=0.35, showlegend=False,
                    line={"color": colour, "width": 14},
                    hovertemplate="interval of the mean: %{x:+.3g} nat<extra></extra>",
                )
            )  # fmt: skip
        figure.add_trace(
            go.Scatter(
                x=list(values), y=[way] * len(values), mode="markers", showlegend=False,
                marker={"color": colour, "size": 12, "line": {"color": "#222222", "width": 1}},
                text=[f"seed number {i}" for i in range(len(values))],
                hovertemplate=f"{way}, %{{text}}: %{{x:+.3g}} nat<extra></extra>",
            )
        )  # fmt: skip
    figure.add_vline(x=0, line={"color": WAYS["pretrained"]})
    styled(figure, f"Held-out loss minus that of: {against}", height=150 + 60 * len(differences))
    low, high = _ends([*differences.values(), *intervals.values()])
    figure.update_xaxes(title="difference [nat], left of 0 is better", range=[low, high])
    figure.update_xaxes(exponentformat="none")
    figure.update_yaxes(automargin=True, autorange="reversed", ticksuffix=" ")
    sentences = [_pair_sentence(*each, intervals.get(each[0])) for each in differences.items()]
    return captioned(figure, " ".join([*sentences, "Each point is one seed."]))


def _ends(values: Iterable[Sequence[float]]) -> tuple[float, float]:
    """The range of an axis that holds all values and 0, with room on both sides."""
    held = [0.0, *(value for each in values for value in each if isfinite(value))]
    room = 0.05 * (max(held) - min(held) or 1)
    return min(held) - room, max(held) + room


def _pair_sentence(way, values, interval) -> str:
    lower = sum(value < 0 for value in values)
    seeds = f"{len(values)} seed{'s' * (len(values) > 1)}"
    text = f"{way}: lower in {lower} of {seeds}, mean {_signed(fmean(values))} nat"
    return text + (f" (interval {' to '.join(map(_signed, interval))})." if interval else ".")


def _signed(value: float) -> str:
    """With 3 decimals, and more where the number is small.

    Examples
    --------
    >>> _signed(-0.09), _signed(0.000123), _signed(0.0)
    ('-0.090', '+0.00012', '+0.000')
    """
    decimals = max(3, 1 - floor(log10(abs(value)))) if value and isfinite(value) else 3
    return f"{value:+.{decimals}f}"


def traffic_svg(client_bytes: Mapping[str, int], clients: int, rounds: int = 1) -> tuple[str, str]:
    """Bars of what travels in a run, as an SVG element, and its caption.

    Parameters
    ----------
    client_bytes : mapping
        What is sent -> the bytes that one client sends and gets in one round.
    clients : int
        Clients that train in a round.
    rounds : int
        Rounds.
    """
    totals = {name: count * clients * rounds for name, count in client_bytes.items()}
    page = Picture(860, 30 + _ROW * len(totals))
    head = f"up and down, {clients} clients in each of {rounds} rounds (to scale)"
    page.marks.append(Text(170, 12, head, 12, "start", bold=True))
    longest = max(totals.values())
    for i, (name, total) in enumerate(totals.items()):
        y, end = 26 + _ROW * i, 170 + max(1.0, _LONGEST * total / longest)
        colour = WAYS["federated"] if i == 0 else WAYS["pretrained"]
        page.marks.append(Text(164, y + 11, name, 12, "end"))
        page.marks.append(rectangle(170, y, end, y + 22, colour, tip=f"{name}: {total:,} B"))
        page.marks.append(Text(end + 6, y + 11, human_bytes(total), 12, "start"))
    text = _traffic_caption(totals, clients, rounds)
    return svg(page, text), text


def traffic(client_bytes: Mapping[str, int], clients: int, rounds: int = 1) -> go.Figure:
    """The same as `traffic_svg`, drawn by plotly."""
    totals = {name: count * clients * rounds for name, count in client_bytes.items()}
    names = list(totals)[::-1]
    colours = [WAYS["pretrained"]] * (len(names) - 1) + [WAYS["federated"]]
    values = [totals[name] for name in names]
    bars = _across(names, values, "", colours, "%{text}", list(map(human_bytes, values)))
    figure = styled(go.Figure(bars), f"What travels in {rounds} rounds of {clients} clients")
    _rows_of(figure, len(names), "bytes up and down, to scale")
    figure.update_xaxes(tickformat="~s", ticksuffix="B")
    figure.update_traces(textposition="outside", cliponaxis=False)
    figure.update_layout(showlegend=False)
    return captioned(figure, _traffic_caption(totals, clients, rounds))


def _traffic_caption(totals, clients, rounds) -> str:
    (first, small), *others = totals.items()
    compared = "; ".join(
        f"{name} sends {human_bytes(total)}, {total / small:.3g} times as much"
        for name, total in others
    )
    return f"{rounds} rounds of {clients} clients: {first} sends {human_bytes(small)}; {compared}."


def _across(names, values, part, colour, hover, text=None) -> go.Bar:
    name = part and f", {part}"
    return go.Bar(
        x=values, y=names, name=part, orientation="h", marker={"color": colour}, text=text,
        hovertemplate=f"%{{y}}{name}: {hover}<extra></extra>",
    )  # fmt: skip


def _rows_of(figure: go.Figure, rows: int, title: str) -> None:
    """Give horizontal bars room for their names."""
    figure.update_layout(height=150 + 26 * rows, legend={"traceorder": "normal"})
    figure.update_yaxes(automargin=True, ticksuffix=" ")
    figure.update_xaxes(title=title)
