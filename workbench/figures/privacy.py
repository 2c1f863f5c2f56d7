"""What is seen and what leaks: masked changes, privacy spent, attacks beside their defences."""

from collections.abc import Mapping
from math import isfinite

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.figures.federated import WAYS
from workbench.figures.marks import Picture, Text, rectangle, svg
from workbench.figures.style import OTHER, captioned, styled

#: Colour of each kind of sampling, and of each defence.
#: Source: Okabe & Ito (2008), as for the strategies.
SAMPLING = {"poisson": "#009E73", "fixed": "#E69F00"}
DEFENCES = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#7F7F7F")
#: Pixels of the longest bar, of one row, and left of the bars, in the picture of a budget.
_LONGEST, _ROW, _LEFT = 420, 22, 190


def masked_change(
    change: np.ndarray, masked: np.ndarray, exact: np.ndarray, mean: np.ndarray
) -> go.Figure:
    """One client's change against what the server got of it, and the mean against the plain one.

    Parameters
    ----------
    change, masked : array
        Number by number: what the client changed, and what arrived.
    exact, mean : array
        The plain mean of all clients' changes, and what came out of the protocol.
    """
    figure = make_subplots(
        cols=2, subplot_titles=["one client: what arrives", "all clients: their mean"],
        horizontal_spacing=0.13,
    )  # fmt: skip
    for column, (x, y, colour) in enumerate(
        [(change, masked, WAYS["local only"]), (exact, mean, WAYS["federated"])], start=1
    ):
        figure.add_trace(
            go.Scatter(
                x=list(x), y=list(y), mode="markers", showlegend=False,
                marker={"color": colour, "size": 4, "opacity": 0.6},
                hovertemplate="true %{x:.3g}, seen %{y:.6g}<extra></extra>",
            ),
            1, column,
        )  # fmt: skip
    styled(figure, "What the server sees", height=400)
    figure.update_layout(margin={"t": 90})
    figure.update_xaxes(title="true change", nticks=5)
    whole = "what arrives, a whole number"
    figure.update_yaxes(title=whole, exponentformat="power", row=1, col=1)
    figure.update_yaxes(title="mean by the protocol", row=1, col=2)
    one, both = _correlation(change, masked), _correlation(exact, mean)
    off = float(np.abs(np.subtract(exact, mean)).max())
    return captioned(
        figure,
        f"{len(change)} numbers. Left: one client's change and what arrives of it, correlation "
        f"{one:+.2f}. Right: the mean of all clients, plain and by the protocol, correlation "
        f"{both:+.4f}; the largest difference is {off:.2g}.",
    )


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one, other)[0, 1])


def epsilon_svg(spent: Mapping[str, Mapping[int, float]], what: str) -> tuple[str, str]:
    """Bars of the privacy spent after several numbers of rounds, as an SVG element, and a caption.

    Parameters
    ----------
    spent : mapping
        Kind of sampling -> rounds -> epsilon.
    what : str
        Unit, neighbouring relation and q, which an epsilon is nothing without.
    """
    rows = [(kind, n, e) for kind, each in spent.items() for n, e in each.items()]
    longest = max((e for _, _, e in rows if isfinite(e)), default=1.0)
    page = Picture(860, 30 + _ROW * len(rows))
    page.marks.append(Text(_LEFT, 12, "epsilon (to scale), smaller is better", 12, "start", True))
    for i, (kind, n, epsilon) in enumerate(rows):
        y = 26 + _ROW * i
        end = _LEFT + (max(1.0, _LONGEST * epsilon / longest) if isfinite(epsilon) else _LONGEST)
        tip = f"{kind}, {n} rounds: epsilon {epsilon:.4g}"
        page.marks.append(Text(_LEFT - 6, y + 9, f"{kind}, {n} rounds", 12, "end"))
        page.marks.append(rectangle(_LEFT, y, end, y + 17, SAMPLING.get(kind, OTHER), tip=tip))
        page.marks.append(Text(end + 6, y + 9, f"{epsilon:.3g}", 12, "start"))
    ends = ", ".join(f"{list(each.values())[-1]:.3g} ({kind})" for kind, each in spent.items())
    last = max(n for _, n, _ in rows)
    text = f"After {last} rounds epsilon is {ends}. {what}"
    return svg(page, text), text


def tokens_read(recalls: Mapping[str, Mapping[int, float]], rank: int) -> go.Figure:
    """The share of a text's tokens that was read from an update, against their number.

    Parameters
    ----------
    recalls : mapping
        How the update was made -> distinct tokens in the text -> recall.
    rank : int
        Rank of the adapters.
    """
    figure = go.Figure()
    figure.add_vline(x=rank, line={"color": WAYS["pretrained"], "dash": "dot"})
    figure.add_annotation(x=rank, y=1.08, text=f"rank {rank}", showarrow=False, xshift=32)
    for (name, each), colour in zip(recalls.items(), DEFENCES, strict=False):
        figure.add_trace(
            go.Scatter(
                x=list(each), y=list(each.values()), name=name, mode="lines+markers",
                line={"color": colour}, marker={"size": 9},
                hovertemplate=f"{name}, %{{x}} tokens: %{{y:.0%}}<extra></extra>",
            )
        )  # fmt: skip
    styled(figure, "Tokens read from one update", height=400)
    figure.update_xaxes(title="distinct tokens in the client's text, but the last")
    figure.update_yaxes(title="share of them that was read", range=[-0.05, 1.15])
    said = "; ".join(
        f"{name}: {each[few]:.0%} of {few} tokens"
        + (f", {each[many]:.0%} of {many}" * (many > few))
        for name, each in recalls.items()
        for few, many in [(min(each), max(each))]
    )
    return captioned(figure, f"Rank {rank}. {said}.")


def attack_and_utility(
    told: Mapping[str, tuple[float, float, float]], falls: Mapping[str, float]
) -> go.Figure:
    """How well members are told, with its interval, beside what the training was good for.

    Parameters
    ----------
    told : mapping
        Way to train -> area under the ROC curve, and the ends of its interval.
    falls : mapping
        The same ways -> fall of the held-out loss [nat].
    """
    names = list(told)
    figure = make_subplots(
        cols=2, shared_yaxes=True, horizontal_spacing=0.06,
        subplot_titles=["members told (0.5 is chance)", "fall of the held-out loss [nat]"],
    )  # fmt: skip
    areas, lows, highs = zip(*told.values(), strict=True)
    spread = {"array": np.subtract(highs, areas), "arrayminus": np.subtract(areas, lows)}
    figure.add_trace(
        go.Scatter(
            x=areas, y=names, mode="markers", showlegend=False, error_x={"type": "data", **spread},
            marker={"color": DEFENCES[0], "size": 11},
            hovertemplate="%{y}: %{x:.2f}<extra></extra>",
        ),
        1, 1,
    )  # fmt: skip
    figure.add_trace(
        go.Bar(
            x=[falls[name] for name in names], y=names, orientation="h", showlegend=False,
            marker={"color": WAYS["federated"]}, hovertemplate="%{y}: %{x:+.3f} nat<extra></extra>",
            text=[f"{falls[name]:+.3f}" for name in names], cliponaxis=False,
        ),
        1, 2,
    )  # fmt: skip
    figure.add_vline(x=0.5, line={"color": WAYS["pretrained"], "dash": "dot"}, row=1, col=1)
    figure.add_vline(x=0, line={"color": WAYS["pretrained"]}, row=1, col=2)
    styled(figure, "An attack, its defence, and the defence's cost", height=210 + 50 * len(told))
    figure.update_layout(margin={"t": 90})
    area = "area under the ROC curve"
    figure.update_xaxes(title=area, range=[-0.05, 1.05], row=1, col=1)
    figure.update_xaxes(title="right is better", row=1, col=2)
    figure.update_yaxes(automargin=True, autorange="reversed", ticksuffix=" ")
    said = "; ".join(
        f"{name}: area {told[name][0]:.2f} ({told[name][1]:.2f} to {told[name][2]:.2f}), held-out "
        f"loss {moved(falls[name])} nat"
        for name in names
    )
    return captioned(figure, f"{said}. Bars on the points: 95 % bootstrap intervals.")


def moved(fall: float) -> str:
    """That a loss fell by so much, or rose.

    Examples
    --------
    >>> moved(0.25), moved(-1.7)
    ('fell by 0.250', 'rose by 1.700')
    """
    return f"fell by {fall:.3f}" if fall >= 0 else f"rose by {-fall:.3f}"
