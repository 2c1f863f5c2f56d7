"""Why owners train together: what each way of tuning sends and reaches, and from which start."""

from collections.abc import Mapping, Sequence
from statistics import fmean

import plotly.graph_objects as go

from workbench.figures.style import INK, OTHER, captioned, log_ticks, styled
from workbench.units import human_bytes

#: Colour of each way of tuning, and of each start; the lines of a partition.
#: Source: Okabe & Ito (2008), as for the strategies.
TUNES: dict[str, str] = {
    "lora": "#009E73",
    "head": "#0072B2",
    "prompt": "#CC79A7",
    "prefix": "#E69F00",
    "full": "#7F7F7F",
}
STARTS: dict[str, str] = {"pretrained": "#009E73", "random": "#D55E00"}
DASHES = ("solid", "dot", "dash", "dashdot")


def sent_bytes(kinds: Mapping[str, int]) -> go.Figure:
    """Bars of what one client sends in a round, on a logarithmic axis, the fewest bytes on top.

    Parameters
    ----------
    kinds : mapping
        Way of tuning -> bytes.
    """
    names = sorted(kinds, key=kinds.get, reverse=True)
    values = [kinds[name] for name in names]
    figure = go.Figure(
        go.Bar(
            x=values, y=names, orientation="h", text=list(map(human_bytes, values)),
            textposition="outside", cliponaxis=False,
            marker={"color": [TUNES.get(name, OTHER) for name in names]},
            hovertemplate="%{y}: %{text}<extra></extra>",
        )
    )  # fmt: skip
    styled(figure, "What one client sends in a round", height=150 + 32 * len(names))
    title = "bytes, from one label to the next 10 times as many"
    figure.update_xaxes(type="log", title=title, **log_ticks(values, human_bytes, (1,)))
    figure.update_yaxes(automargin=True, ticksuffix=" ")
    figure.update_layout(showlegend=False, margin={"r": 90})
    least, most = names[-1], names[0]
    said = ", ".join(f"{name} {human_bytes(kinds[name])}" for name in reversed(names))
    return captioned(
        figure, f"{said}: {most} sends {kinds[most] / kinds[least]:,.0f} times what {least} does."
    )


def loss_and_bytes(kinds: Mapping[str, tuple[int, Sequence[float]]], start: float) -> go.Figure:
    """Points, one a seed and a large one for their mean: bytes of a run against its last loss.

    Parameters
    ----------
    kinds : mapping
        Way of tuning -> the bytes of a run, and for each seed the held-out loss after it [nat].
    start : float
        Loss of the pretrained model [nat].
    """
    figure = go.Figure()
    figure.add_hline(y=start, line={"color": INK, "dash": "dot", "width": 1})
    for name, (sent, losses) in kinds.items():
        colour = TUNES.get(name, OTHER)
        for values, size, line in ((losses, 7, 0.5), ([fmean(losses)], 16, 1.5)):
            figure.add_trace(
                go.Scatter(
                    x=[sent] * len(values), y=list(values), mode="markers", name=name,
                    showlegend=size > 7, opacity=1 if size > 7 else 0.6,
                    marker={"color": colour, "size": size, "line": {"color": INK, "width": line}},
                    hovertemplate=f"{name}, {human_bytes(sent)}: %{{y:.3f}} nat<extra></extra>",
                )
            )  # fmt: skip
    styled(figure, "What a run sends, and how good it gets", height=420)
    figure.update_xaxes(type="log", title="bytes up and down in the whole run",
                        **log_ticks((sent for sent, _ in kinds.values()), human_bytes))  # fmt: skip
    figure.update_yaxes(title="held-out loss [nat], lower is better")
    seeds = len(next(iter(kinds.values()))[1])
    ends = sorted((fmean(losses), name, sent) for name, (sent, losses) in kinds.items())
    said = ", ".join(f"{name} {loss:.3f} for {human_bytes(sent)}" for loss, name, sent in ends)
    return captioned(
        figure,
        f"Lowest mean loss first: {said}; dotted, the pretrained model, {start:.3f} nat. "
        + (f"Large: the mean over {seeds} seeds; small: each seed." if seeds > 1 else "One seed."),
    )


def start_curves(runs: Mapping[tuple[str, str], Sequence[Sequence[float]]]) -> go.Figure:
    """Held-out loss round by round, a line for each start and partition: the mean over seeds.

    Parameters
    ----------
    runs : mapping
        (start, partition) -> for each seed the losses [nat]: before, then after each round.
    """
    figure = go.Figure()
    dashes = dict(zip(dict.fromkeys(name for _, name in runs), DASHES, strict=False))
    means = {key: [fmean(each) for each in zip(*seeds, strict=True)] for key, seeds in runs.items()}
    for (start, partition), losses in means.items():
        figure.add_trace(
            go.Scatter(
                x=list(range(len(losses))), y=losses, name=f"{start}, {partition}",
                mode="lines+markers",
                line={"color": STARTS.get(start, OTHER), "dash": dashes[partition], "width": 3},
                hovertemplate=f"{start}, {partition}, round %{{x}}: %{{y:.3f}} nat<extra></extra>",
            )
        )  # fmt: skip
    styled(figure, "All weights trained, from two starts", height=430)
    figure.update_xaxes(title="round", dtick=1)
    figure.update_yaxes(title="held-out loss [nat], lower is better", rangemode="tozero")
    said = "; ".join(
        f"{start}, {partition}: {losses[0]:.2f} to {losses[-1]:.2f} nat"
        for (start, partition), losses in means.items()
    )
    seeds = len(next(iter(runs.values())))
    return captioned(
        figure, f"{said}. Means over {seeds} seeds." if seeds > 1 else f"{said}. One seed."
    )
