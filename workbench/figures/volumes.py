"""How much each strategy sends, by closed form."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.dims import Dims, check_count
from workbench.figures.style import byte_ticks, captioned, colour_of, styled
from workbench.step import closed_form_bytes
from workbench.strategies import STRATEGIES
from workbench.transformer import TransformerSpec
from workbench.units import human_bytes

PHASES = ("forward", "backward", "gradients")
#: What a phase looks like in a bar, besides the strategy's colour.
_PATTERN = {"forward": "", "backward": "/", "gradients": "x"}
_NAMES, _SWATCH = {"gradients": "weights' gradients"}, "#555555"


@dataclass(frozen=True)
class Volume:
    """What one rank sends in a step under one strategy [bytes], or why the strategy refuses."""

    strategy: str
    bytes_by_phase: dict[str, int]
    refusal: str = ""

    @property
    def sent_bytes(self) -> int:
        """Forward and backward together."""
        return self.bytes_by_phase["forward"] + self.bytes_by_phase["backward"]


def volumes(
    spec: TransformerSpec,
    p: int,
    strategies: Iterable[str] | None = None,
    dtype: str = "float32",
) -> list[Volume]:
    """Volumes of the given strategies (all, for ``None``) by closed form."""
    check_count("p (the number of ranks)", p)
    return [_volume(spec, name, p, dtype) for name in strategies or STRATEGIES]


def _volume(spec, name, p, dtype) -> Volume:
    try:
        sent = {
            phase: closed_form_bytes(spec, name, p=p, phase=phase, dtype=dtype) for phase in PHASES
        }
    except ValueError as error:
        return Volume(name, {}, str(error))
    return Volume(name, sent)


def volume_bars(
    spec: TransformerSpec,
    p: int,
    strategies: Iterable[str] | None = None,
    dtype: str = "float32",
) -> go.Figure:
    """Bars of the bytes that one rank sends in one training step, phase by phase.

    Parameters
    ----------
    spec : TransformerSpec
        The model and its input.
    p : int
        Ranks.
    strategies : iterable of str or None
        Names; ``None`` for all. One that refuses is named, with its reason in the caption.
    dtype : {"float32", "bfloat16", "float64"}
        Of weights and activations.

    Returns
    -------
    go.Figure
        Left what moves activations, right what sums the weights' gradients, on its own scale.
    """
    found = volumes(spec, p, strategies, dtype)
    titles = ("moves activations", "sums the weights' gradients")
    figure = make_subplots(
        1, 2, subplot_titles=titles, column_widths=[0.64, 0.36], shared_yaxes=True,
        horizontal_spacing=0.06,
    )  # fmt: skip
    for phase in PHASES:
        column = 2 if phase == "gradients" else 1
        figure.add_traces([_bars(found, phase), _swatch(phase)], 1, column)
    for volume in found:
        if volume.refusal:
            words = "refuses: see below"
            figure.add_annotation(
                x=0, y=volume.strategy, text=words, showarrow=False, xanchor="left"
            )
    dims = ", ".join(f"{name} {size:,}" for name, size in spec.dims.items())
    title = f"One training step on {p} ranks: {dims}, {dtype}"
    legend = {"orientation": "h", "yref": "container", "y": 0.01, "yanchor": "bottom",
              "x": 0, "traceorder": "normal"}  # fmt: skip
    styled(figure, title, barmode="group", height=180 + 50 * len(found), legend=legend)
    figure.update_layout(margin={"l": 110, "t": 90, "b": 90})
    figure.update_xaxes(title_text="sent by one rank [bytes]", tickformat="~s", ticksuffix="B")
    for column, phases in ((1, PHASES[:2]), (2, PHASES[2:])):
        most = max((v.bytes_by_phase.get(f, 0) for v in found for f in phases), default=0)
        figure.update_xaxes(range=[0, 1.25 * most or 1], nticks=6, col=column)  # room for labels
    figure.update_yaxes(autorange="reversed", categoryorder="array", tickfont={"size": 13},
                        categoryarray=[v.strategy for v in found])  # fmt: skip
    return captioned(figure, volume_caption(spec, p, found, dtype))


def _bars(found: Sequence[Volume], phase: str) -> go.Bar:
    hover = [
        v.refusal or f"{STRATEGIES[v.strategy].formula}<br>forward, as the paper writes it"
        for v in found
    ]
    sent = [v.bytes_by_phase.get(phase) for v in found]
    return go.Bar(
        name=_NAMES.get(phase, phase),
        showlegend=False,
        orientation="h",
        y=[v.strategy for v in found],
        x=sent,
        text=["" if b is None else human_bytes(b) for b in sent],
        textposition="outside",
        cliponaxis=False,
        customdata=hover,
        hovertemplate="%{y}, " + phase + ": %{text}<br>%{customdata}<extra></extra>",
        marker={
            "color": [colour_of(v.strategy) for v in found],
            "pattern": _pattern(phase),
        },
    )


def _swatch(phase: str) -> go.Bar:
    """The legend's entry of a phase, in no strategy's colour."""
    marker = {"color": _SWATCH, "pattern": _pattern(phase)}
    return go.Bar(x=[None], y=[None], name=_NAMES.get(phase, phase), orientation="h", marker=marker)


def _pattern(phase: str) -> dict:
    return {"shape": _PATTERN[phase], "fillmode": "overlay", "fgcolor": "#FFFFFF"}


def volume_caption(
    spec: TransformerSpec, p: int, found: Sequence[Volume], dtype: str = "float32"
) -> str:
    """Say in numbers who sends least and most, and who refuses and why."""
    size = human_bytes(spec.activation_bytes(dtype))
    parts = [f"The whole activation M is {size}; each of {p} ranks sends the bytes shown."]
    ran = [v for v in found if not v.refusal and v.strategy != "single"]
    if ran:
        least, most = (pick(ran, key=lambda v: v.sent_bytes) for pick in (min, max))
        parts.append(
            f"Forward and backward, {least.strategy} sends the least, "
            f"{human_bytes(least.sent_bytes)}"
        )
        if least.sent_bytes and most is not least:
            ratio = most.sent_bytes / least.sent_bytes
            parts[-1] += (
                f"; {most.strategy} the most, {human_bytes(most.sent_bytes)}, "
                f"{ratio:.3g} times that"
            )
        parts[-1] += "."
        summed = max(v.bytes_by_phase["gradients"] for v in ran)
        if summed:
            parts.append(
                f"Summing the gradients of replicated weights adds up to {human_bytes(summed)}."
            )
    return " ".join([*parts, *refusals({v.strategy: v.refusal for v in found if v.refusal})])


def refusals(reasons: dict[str, str]) -> list[str]:
    """One sentence a reason: which strategies refuse, and why."""
    alike: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        alike.setdefault(reason.removeprefix(f"{name} "), []).append(name)
    return [f"Refused: {', '.join(names)}: {reason}." for reason, names in alike.items()]


def volume_curves(
    spec: TransformerSpec,
    over: str,
    values: Sequence[int],
    strategies: Iterable[str] | None = None,
    *,
    p: int = 4,
    dtype: str = "float32",
) -> go.Figure:
    """Curves of the bytes that one rank sends forward and backward.

    Parameters
    ----------
    spec : TransformerSpec
        The model and its input.
    over : str
        ``"p"``, or the dim whose size varies.
    values : sequence of int
        What it takes. Where a strategy refuses, its curve has a gap.
    strategies : iterable of str or None
        Names; ``None`` for all parallel ones.
    p : int
        Ranks, where ``over`` is a dim.
    dtype : {"float32", "bfloat16", "float64"}
        Of the activations.
    """
    names = list(strategies or [name for name in STRATEGIES if name != "single"])
    figure = go.Figure()
    for name in names:
        sent = [_sent(varied(spec, over, value), name, value if over == "p" else p, dtype)
                for value in values]  # fmt: skip
        again = any(list(curve.y) == sent for curve in figure.data)  # show what lies below
        figure.add_trace(
            go.Scatter(
                x=list(values), y=sent, name=name, mode="lines+markers",
                marker={"color": colour_of(name), "size": 5 if again else 8},
                line={"width": 2.5, "dash": "dash" if again else "solid"},
                text=["" if y is None else human_bytes(y) for y in sent],
                hovertemplate=f"{name}, {over} = %{{x}}: %{{text}}<extra></extra>",
            )
        )  # fmt: skip
    axis = {"title": "ranks p" if over == "p" else f"{over} [positions]", "type": "log"}
    rest = "" if over == "p" else f" on {p} ranks"
    styled(figure, f"Sent by one rank in one step{rest}, {dtype}", height=430)
    figure.update_xaxes(**axis, tickvals=list(values))
    title = "forward + backward [bytes, log scale]"
    sent = [y for curve in figure.data for y in curve.y if y]
    figure.update_yaxes(title=title, type="log", **byte_ticks(sent))
    return captioned(figure, _curves_caption(figure, over))


def varied(spec: TransformerSpec, over: str, value: int) -> TransformerSpec:
    """``spec`` with the dim ``over`` of another size; unchanged for ``"p"``."""
    if over == "p":
        return spec
    if over not in spec.dims:
        raise ValueError(f"over must be 'p' or one of the dims {list(spec.dims)}; got {over!r}")
    return replace(spec, dims=Dims({**spec.dims, over: value}))


def head_counts(spec: TransformerSpec) -> list[int]:
    """All numbers of heads that the model's width can be cut into."""
    return [heads for heads in range(1, spec.d_model + 1) if spec.d_model % heads == 0]


def _sent(spec, name, p, dtype) -> int | None:
    found = _volume(spec, name, p, dtype)
    return None if found.refusal else found.sent_bytes or None  # a log axis has no 0


def _curves_caption(figure: go.Figure, over: str) -> str:
    parts = []
    for curve in figure.data:
        points = [(x, y) for x, y in zip(curve.x, curve.y, strict=True) if y is not None]
        if not points:
            parts.append(f"{curve.name} sends nothing or refuses everywhere")
            continue
        (first, low), (last, high) = points[0], points[-1]
        parts.append(
            f"{curve.name} goes from {human_bytes(low)} at {over} = {first} to "
            f"{human_bytes(high)} at {over} = {last} ({high / low:.3g} times)"
        )
    gaps = any(None in curve.y for curve in figure.data)
    dashed = any(curve.line.dash == "dash" for curve in figure.data)
    return (
        "; ".join(parts)
        + "."
        + " A dashed curve lies on another that sends the same." * dashed
        + " A gap is a size that the strategy refuses." * gaps
    )
