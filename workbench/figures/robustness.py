"""What attackers get and what a defence costs: errors by number of attackers, bars of two harms."""

from collections.abc import Mapping, Sequence
from math import log10

import plotly.graph_objects as go

from workbench.figures.marks import Picture, Text, rectangle, svg
from workbench.figures.style import INK, OTHER, captioned, log_ticks, styled

#: Colour of each rule, the same in every figure.
#: Source: Okabe & Ito (2008), as for the strategies.
RULE_COLOURS: dict[str, str] = {
    "mean": "#7F7F7F",
    "median": "#0072B2",
    "trimmed mean": "#56B4E9",
    "Krum": "#E69F00",
    "Multi-Krum": "#D55E00",
    "Bulyan": "#009E73",
}
#: The bars of `attack_svg` are on a log scale from here on.
_LEAST, _ROW, _DECADE = 0.1, 30, 110


def breakdown(
    errors: Mapping[str, Sequence[float]],
    withstands: Mapping[str, int],
    clients: int,
    attack: str = "",
    draws: int = 1,
) -> go.Figure:
    """Error of the joined update against the number of attackers, a line for each rule.

    Parameters
    ----------
    errors : mapping
        Rule -> the error with 0, 1, 2, .. attackers; 1 is an honest client's own distance.
    withstands : mapping
        Rule -> how many attackers it is meant for: a star stands there.
    clients : int
        Of how many clients in all.
    attack : str
        What they send, such as ``"far"``; for the title.
    draws : int
        Of how many draws the errors are the mean; for the caption.
    """
    figure, kind = go.Figure(), f"{attack} attackers".strip()
    for rule, values in errors.items():
        stars = [15 if i == withstands[rule] else 6 for i in range(len(values))]
        shapes = ["star" if i == withstands[rule] else "circle" for i in range(len(values))]
        figure.add_trace(
            go.Scatter(
                x=list(range(len(values))), y=list(values), name=rule, mode="lines+markers",
                line={"color": RULE_COLOURS.get(rule, OTHER), "width": 2.5},
                marker={"size": stars, "symbol": shapes, "line": {"color": INK, "width": 0.5}},
                hovertemplate=f"{rule}, %{{x}} attackers: %{{y:.3g}}<extra></extra>",
            )
        )  # fmt: skip
    figure.add_hline(y=1, line={"color": INK, "dash": "dot", "width": 1})
    styled(figure, f"Breakdown: {kind} among {clients} clients", height=430)
    figure.update_xaxes(title="attackers", dtick=1)
    ticks = log_ticks(value for values in errors.values() for value in values)
    figure.update_yaxes(title="distance from the truth, log scale", type="log", **ticks)
    return captioned(figure, _breakdown_caption(errors, withstands, clients, draws))


def _breakdown_caption(errors, withstands, clients, draws) -> str:
    said = []
    for rule, values in errors.items():
        bad = next((i for i, value in enumerate(values) if value > 1), None)
        when = "never here" if bad is None else f"with {bad}"
        said.append(f"{rule} (meant for {withstands[rule]}) {when}")
    return (
        f"{clients} clients; the error rises above an honest client's own (dotted) for: "
        f"{'; '.join(said)}. A star: as many attackers as the rule is meant for. "
        + (f"Errors are means of {draws} draws." if draws > 1 else "One draw.")
    )


def attack_caption(errors: Mapping[str, float], rule: str, attackers: int, clients: int) -> str:
    """What the bars of `attack_svg` show, in words."""
    others = {name: value for name, value in errors.items() if name != rule}
    best = min(errors, key=errors.get)
    text = f"{attackers} of {clients} clients attack: {rule} ends {errors[rule]:.3g} from the truth"
    text += f", {'worse' if errors[rule] > 1 else 'nearer'} than an honest client alone (1)."
    if max(errors.values()) <= 1.001 * errors[best]:
        text += " All rules end as far from it."
    elif others and best != rule:
        text += f" Nearest is {best} with {errors[best]:.3g}."
    return f"{text} One draw."


def attack_svg(errors: Mapping[str, float], rule: str, attackers: int, clients: int) -> str:
    """Bars of each rule's error on a log scale; the chosen rule's has a bold name."""
    page = Picture(760, 40 + _ROW * len(errors))
    head = "distance from the truth, log scale; the line is an honest client's own, 1"
    page.marks.append(Text(120, 12, head, 12, "start"))
    one = 120 + _DECADE * log10(1 / _LEAST)
    for i, (name, value) in enumerate(errors.items()):
        y = 28 + _ROW * i
        end = 120 + max(1.0, _DECADE * log10(max(value, _LEAST) / _LEAST))
        colour = RULE_COLOURS.get(name, OTHER)
        page.marks.append(Text(114, y + 11, name, 12, "end", bold=name == rule))
        page.marks.append(rectangle(120, y, end, y + 22, colour, tip=f"{name}: {value:.4g}"))
        page.marks.append(Text(max(end, one) + 8, y + 11, f"{value:.3g}", 12, "start"))
    page.marks.append(rectangle(one, 24, one + 1, 28 + _ROW * len(errors), INK))
    return svg(page, attack_caption(errors, rule, attackers, clients))


def harm(
    rows: Mapping[str, Mapping[str, Sequence[float]]], x: str, better: str = "right is better"
) -> go.Figure:
    """Horizontal bars of means over seeds, grouped by attack; whiskers reach from seed to seed.

    Parameters
    ----------
    rows : mapping
        Name of the run, the first on top -> series (such as ``"no defence"``) -> a value a seed.
    x : str
        Title of the x axis.
    """
    names, figure, title = list(rows), go.Figure(), x[:1].upper() + x[1:]
    series = list(dict.fromkeys(s for each in rows.values() for s in each))
    colours = dict(zip(series, ("#7F7F7F", "#009E73", "#0072B2"), strict=False))
    for one in series:
        held = [name for name in names if one in rows[name]]
        means = [sum(rows[n][one]) / len(rows[n][one]) for n in held]
        ends = [(min(rows[n][one]), max(rows[n][one])) for n in held]
        bar = go.Bar(
            x=means, y=held, name=one, orientation="h", marker={"color": colours.get(one, OTHER)},
            hovertemplate=f"%{{y}}, {one}: %{{x:.3g}}<extra></extra>",
            error_x={
                "array": [high - mean for mean, (_, high) in zip(means, ends, strict=True)],
                "arrayminus": [mean - low for mean, (low, _) in zip(means, ends, strict=True)],
                "color": INK, "visible": any(low < high for low, high in ends),
            },
        )  # fmt: skip
        figure.add_trace(bar)
    figure.add_vline(x=0, line={"color": INK, "width": 1})
    styled(figure, title, barmode="group", height=160 + 34 * len(names) * len(series))
    figure.update_layout(legend={"traceorder": "normal"})
    figure.update_yaxes(automargin=True, ticksuffix=" ", autorange="reversed")
    figure.update_xaxes(title=f"{x}, {better}")
    said = [
        f"{name}: " + ", ".join(f"{s} {_mean_range(v)}" for s, v in rows[name].items())
        for name in rows
    ]
    several = any(len(values) > 1 for each in rows.values() for values in each.values())
    whiskers = " Whiskers: from the least seed to the largest." if several else ""
    return captioned(figure, f"{title}. {'; '.join(said)}.{whiskers}")


def _mean_range(values: Sequence[float]) -> str:
    mean = f"{sum(values) / len(values):.3g}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3g} to {max(values):.3g})"
