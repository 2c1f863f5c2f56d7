"""Plans in pictures: memory against time, and ranked bars with what binds each."""

from collections.abc import Sequence
from math import log10
from textwrap import shorten

import plotly.graph_objects as go

from workbench.figures.marks import Picture, Text, rectangle, svg
from workbench.figures.style import INK, PAPER, captioned, colour_of, log_ticks, styled
from workbench.planner import Plan, pareto
from workbench.units import human_bytes, human_seconds

#: Pixels: where bars begin, the longest of them, a row; characters of a reason in one line.
_LEFT, _LONGEST, _ROW, _LINE = 245, 260, 24, 105
#: Strategies of two axes share a colour; dots tell them apart.
_SYMBOLS = {"usp": "diamond", "dsp-ulysses": "square", "dsp-dsp": "triangle-up"}


def pareto_chart(plans: Sequence[Plan], budget_bytes: int) -> go.Figure:
    """Draw each plan's memory against its time, and a line through those that no other beats.

    Parameters
    ----------
    plans : sequence of Plan
        As `workbench.planner.plan` returns them; those that can't run are left out.
    budget_bytes : int
        Memory of a device [bytes].
    """
    runs = [q for q in plans if q.memory_bytes is not None]
    figure = go.Figure()
    for name in dict.fromkeys(q.strategy for q in runs):
        these = [q for q in runs if q.strategy == name]
        figure.add_trace(go.Scatter(
            x=[q.seconds for q in these], y=[q.memory_bytes / 1e9 for q in these], name=name,
            mode="markers",
            marker={"color": colour_of(name), "size": 8, "symbol": _SYMBOLS.get(name, "circle")},
            text=[_words(q) for q in these],
            hovertemplate="%{text}: %{x:.3g} s, %{y:.3g} GB<extra></extra>",
        ))  # fmt: skip
    front = pareto(runs)
    figure.add_trace(go.Scatter(
        x=[q.seconds for q in front], y=[q.memory_bytes / 1e9 for q in front], mode="lines",
        name="no other beats", line={"color": INK, "shape": "hv", "width": 1}, hoverinfo="skip",
    ))  # fmt: skip
    figure.add_hline(y=budget_bytes / 1e9, line={"color": "#D55E00", "dash": "dash"})
    figure.add_annotation(  # whose place on a logarithmic axis is a logarithm; a line's is not
        x=1, xref="paper", y=log10(budget_bytes / 1e9), text="a device's memory",
        showarrow=False, xanchor="right", yanchor="bottom",
    )  # fmt: skip
    styled(figure, "Plans: memory against time (predicted)", height=460)
    seconds, held = [q.seconds for q in runs], [q.memory_bytes / 1e9 for q in runs]
    figure.update_xaxes(title="seconds of a step", type="log", **log_ticks(seconds, human_seconds))
    figure.update_yaxes(title="memory of a rank [GB]", type="log", **log_ticks(held))
    fast, small = front[0], front[-1]
    return captioned(
        figure,
        f"{len(front)} of {len(runs)} plans are beaten by no other. The fastest, {_words(fast)}, "
        f"takes {human_seconds(fast.seconds)} and {human_bytes(fast.memory_bytes)} a rank; the "
        f"smallest, {_words(small)}, {human_seconds(small.seconds)} and "
        f"{human_bytes(small.memory_bytes)}. "
        f"{sum(not q.fits for q in runs)} need more than a device has.",
    )


def _words(q: Plan) -> str:
    """A plan in a few words, without repeating its strategy."""
    mesh = f" on {q.ranks}" if q.mesh else ""
    kept = "" if q.checkpoint == "none" else f", checkpoint {q.checkpoint}"
    parts = f", {q.accumulate} micro-batches" if q.accumulate > 1 else ""
    return f"{q.strategy}{mesh}{kept}{', FSDP' if q.fsdp else ''}{parts}"


def plan_svg(plans: Sequence[Plan]) -> str:
    """One row a plan, the best first: a bar of its seconds, its memory and what binds it.

    What does not fit says why instead.
    """
    page = Picture(820, 40 + _ROW * len(plans))
    places = ((_LEFT, "a step", "start"), (600, "memory", "middle"), (720, "bound by", "middle"))
    page.marks += [Text(x, 14, head, 11, anchor, bold=True) for x, head, anchor in places]
    longest = max((q.seconds for q in plans if q.fits), default=1.0)
    for i, q in enumerate(plans):
        page.marks += _row(q, 30 + _ROW * i, _LONGEST / longest)
    return svg(page, plan_caption(plans))


def _row(q: Plan, y: float, scale: float) -> list:
    name = Text(_LEFT - 8, y + 9, _words(q), 11, "end")
    if not q.fits:
        reason = q.reason.removeprefix(q.strategy + " ")
        reason = shorten(reason, _LINE, placeholder=" …")
        whole = rectangle(_LEFT, y, 815, y + 17, PAPER, tip=q.reason)
        return [name, whole, Text(_LEFT, y + 9, reason, 10, "start", colour="#A00000")]
    end, took = _LEFT + q.seconds * scale, human_seconds(q.seconds)
    bar = rectangle(_LEFT, y, end, y + 17, colour_of(q.strategy), tip=f"{_words(q)}: {took}")
    held = human_bytes(q.memory_bytes)
    words = [Text(end + 6, y + 9, took, 11, "start"), Text(600, y + 9, held, 11)]
    return [name, bar, *words, Text(720, y + 9, q.binds, 11)]


def plan_caption(plans: Sequence[Plan]) -> str:
    """Which plan is best, what binds it, how far behind the next is, and how many don't fit."""
    fits = [q for q in plans if q.fits]
    if not fits:
        return f"None of {len(plans)} plans fits."
    best = fits[0]
    text = (
        f"Predicted: {_words(best)} is best with {human_seconds(best.seconds)} a step and "
        f"{human_bytes(best.memory_bytes)} a rank; {best.reason}."
    )
    if len(fits) > 1:
        text += f" Next is {_words(fits[1])}, with {fits[1].seconds / best.seconds:.2f} times that."
    lost = [q for q in plans if not q.fits]
    large = sum(q.memory_bytes is not None for q in lost)
    said = [f"{large} of {len(plans)} don't fit"] if large else []
    said += [f"{len(lost) - large} can't run"] if len(lost) > large else []
    return f"{text} {', '.join(said or ['All fit'])}."
