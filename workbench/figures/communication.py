"""What a federated run sends: loss against bytes, and hours of a round's parts."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from statistics import fmean

import pandas as pd
import plotly.graph_objects as go

from workbench.figures.marks import Picture, Text, rectangle, svg
from workbench.figures.style import INK, LINES, byte_ticks, captioned, rank_colours, styled
from workbench.units import human_bytes, human_seconds

#: Parts of a round and their colours. Source: Okabe & Ito (2008).
PARTS = {"download": "#56B4E9", "computing": "#E69F00", "upload": "#0072B2"}
_LONGEST, _ROW, _LEFT = 460, 34, 130
#: Marks of what is sent: equally many bytes lie on top of each other.
_MARKS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon")
#: Ticks of an axis of hours.
_DURATIONS = {
    "1 s": 1 / 3600, "1 min": 1 / 60, "10 min": 1 / 6, "1 h": 1, "6 h": 6, "1 day": 24,
    "1 week": 168, "30 days": 720, "1 year": 8760, "10 years": 87600, "100 years": 876000,
}  # fmt: skip


def loss_bytes(runs: Mapping[str, tuple[float, Sequence[float]]]) -> go.Figure:
    """Held-out loss against what one client sends in a round; small: seeds, large: their mean.

    Parameters
    ----------
    runs : mapping
        What is sent -> its bytes up, and for each seed the loss after the last round [nat].
    """
    figure = go.Figure()
    for i, (name, (sent, losses)) in enumerate(runs.items()):
        mark = {"color": rank_colours(len(runs))[i], "symbol": _MARKS[i % len(_MARKS)]}
        figure.add_trace(
            go.Scatter(
                x=[sent] * len(losses), y=list(losses), mode="markers", showlegend=False,
                marker={**mark, "size": 7, "line": {"color": INK, "width": 0.5}},
                hovertemplate=f"{name}: %{{y:.3f}} nat<extra></extra>",
            )
        )  # fmt: skip
        figure.add_trace(
            go.Scatter(
                x=[sent], y=[fmean(losses)], mode="markers", name=name,
                marker={**mark, "size": 14, "line": {"color": INK, "width": 1.5}},
                hovertemplate=f"{name}, mean: %{{y:.3f}} nat, %{{x:,}} B<extra></extra>",
            )
        )  # fmt: skip
    styled(figure, "What a byte buys", height=430)
    ticks = byte_ticks([int(sent) for sent, _ in runs.values()])
    figure.update_xaxes(title="one client's update, bytes up", type="log", **ticks)
    figure.update_yaxes(title="held-out loss after the run [nat]")
    seeds = len(next(iter(runs.values()))[1])
    said = "; ".join(
        f"{name}: {human_bytes(sent)} and {fmean(losses):.3f} nat"
        for name, (sent, losses) in sorted(runs.items(), key=lambda each: each[1][0])
    )
    means = f"means of {seeds} seeds" if seeds > 1 else "one seed"
    return captioned(figure, f"Fewest bytes first, {means}: {said}.")


def hours_svg(rows: Mapping[str, Mapping[str, float]]) -> tuple[str, str]:
    """Bars of what part of a run's hours each thing takes, as an SVG element; and its caption.

    Parameters
    ----------
    rows : mapping
        What is trained -> part of `PARTS` -> hours, by assumption.
    """
    page = Picture(_LEFT + _LONGEST + 210, 44 + _ROW * len(rows))
    for i, (part, colour) in enumerate(PARTS.items()):
        x = _LEFT + 120 * i
        page.marks += [rectangle(x, 8, x + 12, 20, colour), Text(x + 17, 14, part, 12, "start")]
    for i, (name, parts) in enumerate(rows.items()):
        y, left = 34 + _ROW * i, float(_LEFT)
        page.marks.append(Text(_LEFT - 6, y + 12, name, 12, "end"))
        for part, colour in PARTS.items():
            end = left + _LONGEST * parts[part] / sum(parts.values())
            tip = f"{name}, {part}: {parts[part]:,.3g} h"
            page.marks.append(rectangle(left, y, end, y + 24, colour, tip=tip))
            left = end
        page.marks.append(Text(left + 6, y + 12, _total(parts), 12, "start"))
    text = hours_caption(rows)
    return svg(page, text), text


def hours_caption(rows: Mapping[str, Mapping[str, float]]) -> str:
    """How long each takes, and which part takes most."""
    said = "; ".join(f"{name}: {_total(parts)}" for name, parts in rows.items())
    return f"{said}. By assumption, not measured."


def _total(parts: Mapping[str, float]) -> str:
    most, total = max(parts, key=parts.get), sum(parts.values())
    return f"{human_hours(total)}, {parts[most] / total:.0%} of it {most}"


def human_hours(hours: float) -> str:
    """Hours as seconds or minutes if they are few, as days or years if they are many.

    Examples
    --------
    >>> human_hours(0.5), human_hours(3), human_hours(100), human_hours(1e6)
    ('30 min', '3 h', '4.17 days', '114 years')
    """
    if hours < 1:
        return human_seconds(3600 * hours)
    for unit, size in (("years", 24 * 365), ("days", 48)):
        if hours >= size:
            return f"{hours / (size if unit == 'years' else 24):,.3g} {unit}"
    return f"{hours:.3g} h"


def scale_lines(table: pd.DataFrame, column: str, title: str) -> go.Figure:
    """A line for each model over the number of clients, both axes logarithmic.

    Parameters
    ----------
    table : DataFrame
        As `workbench.federated.scale_cost` makes it.
    column : str
        What is drawn: ``"hours"``, or one of bytes.
    title : str
        What the column is.
    """
    figure, models = go.Figure(), table["model"].unique().tolist()
    for model, colour in zip(models, cycle(LINES), strict=False):
        mine = table[table["model"] == model]
        figure.add_trace(
            go.Scatter(
                x=mine["clients"].tolist(), y=mine[column].tolist(), name=model,
                mode="lines+markers", line={"color": colour, "width": 3},
                hovertemplate=f"{model}, %{{x:,}} clients: %{{y:.3g}}<extra></extra>",
            )
        )  # fmt: skip
    styled(figure, f"{title[:1].upper()}{title[1:]} (on paper)", height=430)
    hours = {"tickvals": list(_DURATIONS.values()), "ticktext": list(_DURATIONS)}
    ticks = byte_ticks(table[column].tolist()) if column.endswith("bytes") else hours
    counts = sorted(set(table["clients"].tolist()))
    there = {"tickvals": counts, "ticktext": [f"{count:,}" for count in counts]}
    figure.update_xaxes(title="clients that there are, log scale", type="log", **there)
    figure.update_yaxes(title=f"{title}, log scale", type="log", **ticks)
    figure.update_layout(legend={"traceorder": "reversed"})  # as the lines lie
    least, most = (table.loc[at] for at in (table[column].idxmin(), table[column].idxmax()))
    say = human_bytes if column.endswith("bytes") else human_hours
    ends = [float(each[column]) for each in (least, most)]
    return captioned(
        figure,
        f"From {say(ends[0])} ({least['model']}, {least['clients']:,} clients) to "
        f"{say(ends[1])} ({most['model']}, {most['clients']:,} clients). By assumption.",
    )
