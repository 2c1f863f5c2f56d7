"""What the log of a step says: who sends to whom, in which order, how long, how much memory."""

from collections.abc import Iterable, Sequence
from math import log10

import plotly.graph_objects as go

from workbench.cluster import DEVICES
from workbench.collectives import Phase, bytes_to_peers
from workbench.figures.style import KINDS, byte_ticks, captioned, colour_of, styled
from workbench.figures.volumes import refusals
from workbench.outcome import RealStep, Step
from workbench.step import fake_step
from workbench.strategies import STRATEGIES
from workbench.transformer import TransformerSpec
from workbench.units import human_bytes, human_seconds


def rank_matrix(step: Step, phases: Sequence[Phase] = ("forward", "backward")) -> go.Figure:
    """Heat map of the bytes that each rank sends to each other one, from a step's log.

    Parameters
    ----------
    step : Step
        Faked or real; every rank's log is the same.
    phases : sequence of {"forward", "backward", "gradients"}
        What to add up.
    """
    p, records = step.p, [r for r in step.log if r.phase in phases]
    rows = [[bytes_to_peers(r, rank, p) for r in records] for rank in range(p)]
    sent = [[sum(to[peer] for to in row) for peer in range(p)] for row in rows]
    ranks = list(range(p))
    figure = go.Figure(
        go.Heatmap(
            z=sent, x=ranks, y=ranks, colorscale="Blues", zmin=0, xgap=2, ygap=2,
            text=[[human_bytes(value) if p <= 8 else "" for value in row] for row in sent],
            texttemplate="%{text}",
            hovertemplate="rank %{y} sends rank %{x}: %{z:,} B<extra></extra>",
            colorbar={"title": "bytes", "tickformat": "~s", "ticksuffix": "B"},
        )
    )  # fmt: skip
    styled(figure, f"{step.strategy}, {p} ranks: who sends to whom", width=620, height=500)
    whole = {"dtick": 1} if p <= 16 else {}
    figure.update_xaxes(title="to rank", constrain="domain", side="bottom", **whole)
    figure.update_yaxes(title="from rank", autorange="reversed", scaleanchor="x", **whole)
    peers = sum(value > 0 for value in sent[0])
    text = (
        f"Each rank sends {human_bytes(sum(sent[0]))} ({' + '.join(phases)}) to {peers} of its "
        f"{p - 1} peers. An exchange fills the whole square; a ring only the next rank's column."
    )
    return captioned(figure, text)


def log_timeline(step: Step) -> go.Figure:
    """One bar a collective, in the order of the log: its kind, its phase and its bytes."""
    figure, numbered = go.Figure(), list(enumerate(step.log, start=1))
    for kind, colour in KINDS.items():
        mine = [(i, record) for i, record in numbered if record.kind == kind]
        if mine:
            figure.add_trace(_kind_bars(kind, colour, mine))
    for phase in ("forward", "backward", "gradients"):
        places = [i for i, record in numbered if record.phase == phase]
        if places:
            figure.add_vrect(
                places[0] - 0.5, places[-1] + 0.5, line_width=0, layer="below",
                fillcolor="#F2F2F2" if phase == "backward" else "#FFFFFF",
                annotation_text=phase, annotation_position="top left",
            )  # fmt: skip
    sizes = [record.sent_bytes for record in step.log if record.sent_bytes]
    log_scale = bool(sizes) and max(sizes) > 30 * min(sizes)
    styled(figure, f"{step.strategy}, {step.p} ranks: the log in order", height=400, bargap=0.15)
    figure.update_layout(legend={"orientation": "h", "y": -0.22}, showlegend=True)
    figure.update_xaxes(title="collective, in order")
    title = "sent by one rank [bytes" + (", log scale]" if log_scale else "]")
    if log_scale:
        floor = log10(min(sizes)) - 1  # a bar of the smallest is one decade high
        span = [floor, log10(max(sizes)) + 0.2]
        figure.update_yaxes(title=title, type="log", range=span, **byte_ticks(sizes))
    else:
        figure.update_yaxes(title=title, tickformat="~s", ticksuffix="B", rangemode="tozero")
    return captioned(figure, _timeline_caption(step))


def _kind_bars(kind, colour, mine) -> go.Bar:
    hover = [
        f"{r.kind} of {r.dim or 'whole tensors'}, {r.phase}"
        + (f", layer {r.layer}, stage {r.stage}" if r.layer is not None else "")
        + f"<br>buffer {r.input_bytes:,} B, sent {r.sent_bytes:,} B<br>{r.where}"
        for _, r in mine
    ]
    return go.Bar(
        name=kind,
        x=[i for i, _ in mine],
        y=[r.sent_bytes for _, r in mine],
        marker={"color": colour},
        customdata=hover,
        hovertemplate="%{x}: %{customdata}<extra></extra>",
    )


def _timeline_caption(step: Step) -> str:
    if not step.log:
        return f"{step.strategy} on {step.p} ranks sends nothing."
    parts = []
    for phase in ("forward", "backward", "gradients"):
        count = sum(record.phase == phase for record in step.log)
        if count:
            parts.append(f"{count} {phase} ({human_bytes(step.bytes_of(phase))})")
    return (
        f"{len(step.log)} collectives in order, each bar one of them: {', '.join(parts)} sent by "
        "each rank. Hover for layer, stage and the line of code that asked for it."
    )


def times(steps: Sequence[RealStep]) -> go.Figure:
    """Bars of the measured seconds of one step under several strategies."""
    figure = go.Figure(
        go.Bar(
            x=[f"{s.strategy}<br>{s.p} rank{'s' * (s.p > 1)}" for s in steps],
            y=[s.seconds for s in steps],
            text=[human_seconds(s.seconds) for s in steps],
            textposition="outside",
            cliponaxis=False,
            marker={"color": [colour_of(s.strategy) for s in steps]},
            customdata=[_errors(step) for step in steps],
            hovertemplate="%{x}: %{text}<br>%{customdata}<extra></extra>",
        )
    )
    styled(figure, "Measured: one training step, slowest rank", height=400)
    figure.update_yaxes(title="seconds a step [s]", rangemode="tozero")
    return captioned(figure, _times_caption(steps))


def _errors(step: RealStep) -> str:
    return f"output error {step.max_error:.1e}, gradient error {step.grad_error:.1e}"


def _times_caption(steps: Sequence[RealStep]) -> str:
    if not steps:
        return "No step was run."
    fast, slow = (pick(steps, key=lambda s: s.seconds) for pick in (min, max))
    text = f"Measured on this machine: {fast.strategy} is fastest, {human_seconds(fast.seconds)}"
    if slow is not fast:
        text += (
            f"; {slow.strategy} slowest, {human_seconds(slow.seconds)}, "
            f"{slow.seconds / fast.seconds:.3g} times that"
        )
    return text + "."


def memory_bars(
    spec: TransformerSpec,
    p: int,
    strategies: Iterable[str] | None = None,
    dtype: str = "float32",
) -> go.Figure:
    """Bars of the peak bytes of one rank, from faked steps, beside the memory of devices."""
    peaks, refused = {}, {}
    for name in strategies or STRATEGIES:
        try:
            ranks = 1 if name == "single" else p
            peaks[name] = fake_step(spec, name, p=ranks, dtype=dtype).peak_bytes
        except ValueError as error:
            refused[name] = str(error)
    figure = go.Figure(
        go.Bar(
            x=list(peaks), y=list(peaks.values()),
            marker={"color": [colour_of(name) for name in peaks]},
            hovertemplate="%{x}: %{y:,} B<extra></extra>",
        )
    )  # fmt: skip
    highest = max(peaks.values(), default=0)
    for size in sorted({device.memory_bytes for device in DEVICES.values()}):
        if size < 20 * highest:
            names = "<br>".join(name.removeprefix("NVIDIA ") for name in _names_of(size))
            figure.add_hline(size, line_dash="dash", layer="below", annotation_text=names,
                             annotation_position="right")  # fmt: skip
    styled(figure, f"Peak memory of one of {p} ranks, one step, {dtype}", height=430)
    labels = [f"{name}<br>{human_bytes(value)}" for name, value in peaks.items()]
    figure.update_xaxes(tickvals=list(peaks), ticktext=labels)
    figure.update_layout(margin_r=140)
    figure.update_yaxes(title="peak of live tensors [bytes]", tickformat="~s", ticksuffix="B")
    figure.update_yaxes(rangemode="tozero")
    return captioned(figure, _memory_caption(peaks, refused))


def _names_of(size: int) -> list[str]:
    """All devices with so much memory."""
    return [device.name for device in DEVICES.values() if device.memory_bytes == size]


def _memory_caption(peaks: dict[str, int], refused: dict[str, str]) -> str:
    smallest = min(DEVICES.values(), key=lambda device: device.memory_bytes)
    parts = []
    if peaks:
        low, high = min(peaks, key=peaks.get), max(peaks, key=peaks.get)
        over = [name for name, value in peaks.items() if value > smallest.memory_bytes]
        parts.append(
            f"{high} needs the most, {human_bytes(peaks[high])}; {low} the least, "
            f"{human_bytes(peaks[low])}, weights and gradients included, optimizer left out."
        )
        fit = f"{', '.join(over)} would not fit" if over else "all would fit"
        names = ", ".join(_names_of(smallest.memory_bytes))
        parts.append(f"In {human_bytes(smallest.memory_bytes)} ({names}) {fit}.")
    return " ".join([*parts, *refusals(refused)])
