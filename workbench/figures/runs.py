"""Federated runs beside each other, and one run while it goes on."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import isfinite
from typing import Any

import plotly.graph_objects as go

from workbench.figures.federated import WAYS
from workbench.figures.marks import Area, Picture, Text, rectangle, svg
from workbench.figures.style import captioned, styled

#: What a curve can be drawn over, and the axis's words.
OVER = {
    "round": "round",
    "uplink_bytes": "sent by the clients so far [B]",
    "seconds": "time so far [s]",
}
#: Pixels of the live picture: its page, and the frame of the curve within it.
_PAGE, _FRAME = (620, 220), (64, 26, 600, 180)


def run_curves(curves: Mapping[str, Any], over: str = "round") -> go.Figure:
    """Held-out loss of several runs, round by round.

    Parameters
    ----------
    curves : mapping
        Run -> a table with columns ``round``, ``eval_loss``, ``uplink_bytes``, ``seconds``, as in
        `workbench.federated.compare_runs`.
    over : {"round", "uplink_bytes", "seconds"}
        What the losses are drawn over.

    Raises
    ------
    ValueError
        If ``over`` is something else.
    """
    if over not in OVER:
        raise ValueError(f"over={over!r}; it is one of {list(OVER)}.")
    figure = go.Figure()
    for name, curve in curves.items():
        figure.add_trace(
            go.Scatter(
                x=list(curve[over]), y=list(curve["eval_loss"]), name=name, mode="lines+markers",
                hovertemplate=f"{name}: %{{y:.4f}} nat at %{{x:.4s}}<extra></extra>",
            )
        )  # fmt: skip
    styled(figure, f"{len(curves)} runs: held-out loss", height=430)
    figure.update_xaxes(title=OVER[over], rangemode="tozero")
    figure.update_yaxes(title="held-out loss [nat], lower is better")
    ends = {name: list(curve["eval_loss"])[-1] for name, curve in curves.items()}
    best = min(ends, key=ends.get)
    spread = max(ends.values()) - ends[best]
    text = f"Lowest at its end: {best}, {ends[best]:.3f} nat"
    text += f"; the highest is {spread:.3f} nat above it." if len(ends) > 1 else "."
    return captioned(figure, f"{text} One run each: no interval, so no verdict.")


def live_svg(losses: Sequence[float], rounds: int) -> tuple[str, str]:
    """The held-out loss so far, with room for the rounds to come, and its caption.

    Parameters
    ----------
    losses : sequence of float
        Of the pretrained start, then after each round that is done [nat].
    rounds : int
        Rounds of the whole run.
    """
    left, top, right, bottom = _FRAME
    page = Picture(*_PAGE, [rectangle(left, top, right, bottom, "#FFFFFF")])
    page.marks.append(Text(left, 12, "held-out loss [nat]", 12, "start", bold=True))
    shown = [(i, loss) for i, loss in enumerate(losses) if isfinite(loss)]
    low, high = min((y for _, y in shown), default=0), max((y for _, y in shown), default=1)
    room = 0.1 * (high - low) or 0.5
    low, high = low - room, high + room
    points = [
        (
            left + (right - left) * i / max(1, rounds),
            bottom - (bottom - top) * (y - low) / (high - low),
        )
        for i, y in shown
    ]
    for one, other in pairwise(points):
        page.marks.append(Area((one, other), None, WAYS["federated"], 2.5))
    for (x, y), (i, loss) in zip(points, shown, strict=True):
        tip = f"{'start' if i == 0 else f'round {i}'}: {loss:.4f} nat"
        page.marks.append(rectangle(x - 4, y - 4, x + 4, y + 4, WAYS["federated"], tip=tip))
    for value, y in ((high, top + 6), (low, bottom - 4)):
        page.marks.append(Text(left - 6, y, f"{value:.3g}", 11, "end"))
    for number in (0, rounds):
        x = left + (right - left) * number / max(1, rounds)
        page.marks.append(Text(x, bottom + 14, "start" if number == 0 else f"round {number}", 11))
    return svg(page, text := _live_caption(losses, rounds)), text


def _live_caption(losses: Sequence[float], rounds: int) -> str:
    if not losses:
        return "Nothing is evaluated yet."
    if len(losses) == 1:
        return f"The start has a held-out loss of {losses[0]:.3f} nat; {rounds} rounds to come."
    change = losses[-1] - losses[0]
    return (
        f"After {len(losses) - 1} of {rounds} rounds the held-out loss is {losses[-1]:.3f} nat, "
        f"{abs(change):.3f} {'below' if change < 0 else 'above'} the start's."
    )
