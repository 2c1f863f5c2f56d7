"""What training looks like: losses that should coincide, clips that play."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots
from torch import Tensor

from workbench.figures.style import captioned, colour_of, styled

#: How long a frame is shown [ms], and pixels of a clip on the page.
FRAME_MS, CLIP_PX = 250, 110
#: Empty pixels between two clips; the least width of a page, for buttons and slider side by side.
_GAP, _LEAST_PX = 1, 560
#: Lines that lie on each other stay visible: the first is wide, the others are dashed.
_DASHES = ("dash", "dot", "dashdot", "longdash", "longdashdot")


def loss_curves(runs: Mapping[str, Sequence[float]], unit: str = "loss") -> go.Figure:
    """Losses step by step and, below, how far each curve is from the first.

    Parameters
    ----------
    runs : mapping
        Name -> loss of each step. The first run is what the others are held against.
    unit : str
        What the losses are.
    """
    (first, expected), *others = runs.items()
    apart = {name: differences(losses, expected) for name, losses in others}
    rows = 2 if any(map(any, apart.values())) else 1  # a logarithmic axis has no place for 0
    figure = make_subplots(rows=rows, shared_xaxes=True, vertical_spacing=0.08)
    steps = list(range(1, len(expected) + 1))
    for i, (name, losses) in enumerate(runs.items()):
        line = {"color": colour_of(name.split(",")[0]), "width": 7 if name == first else 2}
        if name != first:
            line["dash"] = _DASHES[i % len(_DASHES)]
            if rows == 2:
                figure.add_trace(_line(steps, apart[name], name, line, False), 2, 1)
        figure.add_trace(_line(steps, losses, name, line, True), 1, 1)
    title = "One curve, whoever computes it" if others else "Loss of each step"
    styled(figure, title, height=260 * rows + 60)
    figure.update_yaxes(title=unit, row=1)
    if rows == 2:
        axis = {"title": "relative difference", "type": "log", "exponentformat": "power"}
        figure.update_yaxes(**axis, nticks=6, row=2)
    figure.update_xaxes(title="step", row=rows)
    return captioned(figure, _curves_caption(first, expected, apart))


def differences(losses: Sequence[float], expected: Sequence[float]) -> list[float]:
    """How far each loss is from what is expected, relative to it."""
    return [abs(a - b) / abs(b) for a, b in zip(losses, expected, strict=True)]


def _line(steps, values, name, line, shown) -> go.Scatter:
    values = [value or None for value in values]
    return go.Scatter(
        x=steps[: len(values)], y=values, name=name, line=line, showlegend=shown,
        mode="lines" if shown else "lines+markers", marker={"size": 4},
        hovertemplate=f"{name}, step %{{x}}: %{{y:.3g}}<extra></extra>",
    )  # fmt: skip


def _curves_caption(first, expected, apart) -> str:
    text = f"{first}: from {expected[0]:.3g} to {expected[-1]:.3g} in {len(expected)} steps."
    if not apart:
        return text
    worst = {name: max(each) for name, each in apart.items()}
    name = max(worst, key=worst.get)
    lie = "lies" if len(apart) == 1 else "lie"
    if not worst[name]:
        return f"{text} {len(apart)} more {lie} on it, without any difference."
    return (
        f"{text} {len(apart)} more {lie} on it: the largest relative difference at any step is "
        f"{worst[name]:.1e} ({name}). Where the lower panel has no point, there is "
        "no difference at all."
    )


def film(rows: Mapping[str, Tensor], title: str = "Clips") -> go.Figure:
    """Clips that play, one row each kind; press play, or move the slider.

    Parameters
    ----------
    rows : mapping
        Name -> clips ``[batch, time, height, width]`` with values from -1 to 1, alike in shape.
    title : str
        What is shown.
    """
    names, frames = list(rows), _sheets(list(rows.values()))
    count, _, _, width = next(iter(rows.values())).shape
    figure = go.Figure(_sheet(frames[0]))
    figure.frames = [go.Frame(data=[_sheet(z)], name=str(i + 1)) for i, z in enumerate(frames)]
    height = frames[0].shape[0] // len(names)
    styled(
        figure, title,
        width=max(170 + CLIP_PX * count, _LEAST_PX), height=200 + CLIP_PX * len(names),
        updatemenus=[_buttons()], sliders=[_slider(len(frames))],
    )  # fmt: skip
    middles = [height * i + (height - 1) / 2 for i in range(len(names))]
    figure.update_yaxes(
        autorange="reversed",
        tickvals=middles,
        ticktext=names,
        automargin=True,
        showgrid=False,
        zeroline=False,
    )
    figure.update_xaxes(visible=False, scaleanchor="y")
    return captioned(
        figure,
        f"{len(names)} x {count} clips of {len(frames)} frames with {width} x {width} pixels: "
        f"{', '.join(names)}, from top to bottom.",
    )


def _sheets(rows: Sequence[Tensor]) -> list[Tensor]:
    """One picture a frame: clips side by side, rows below each other, with gaps."""
    edge = {"pad": (0, _GAP, 0, _GAP), "value": float("nan")}
    padded = [torch.nn.functional.pad(clips.float(), **edge) for clips in rows]
    whole = torch.stack(padded)  # [row, clip, time, height, width]
    return list(whole.permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2))


def _sheet(z: Tensor) -> go.Heatmap:
    return go.Heatmap(
        z=z.numpy().round(2), zmin=-1, zmax=1, colorscale="gray", showscale=False, hoverinfo="skip"
    )


def _buttons() -> dict:
    timing = {"frame": {"duration": FRAME_MS}, "transition": {"duration": 0}, "fromcurrent": False}
    stop = {"frame": {"duration": 0}, "mode": "immediate"}
    calls = {"play": [None, timing], "pause": [[None], stop]}
    buttons = [{"label": k, "method": "animate", "args": v} for k, v in calls.items()]
    place = {"x": 0, "y": -0.05, "xanchor": "left", "yanchor": "top", "direction": "right"}
    return {"type": "buttons", "showactive": False, "buttons": buttons, **place}


def _slider(frames: int) -> dict:
    now = {"frame": {"duration": 0}, "mode": "immediate", "transition": {"duration": 0}}
    steps = [
        {"label": str(i), "method": "animate", "args": [[str(i)], now]}
        for i in range(1, frames + 1)
    ]
    return {
        "steps": steps,
        "x": 0.35,
        "len": 0.65,
        "y": -0.02,
        "currentvalue": {"prefix": "frame "},
    }
