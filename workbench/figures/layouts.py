"""Who holds which part of the tensor, step by step through one layer."""

from collections.abc import Sequence

import plotly.graph_objects as go
from matplotlib.figure import Figure

from workbench.figures.marks import Picture, Text, printed, svg, traces
from workbench.figures.panels import Panel, legend, note, panel_picture
from workbench.figures.style import captioned, styled
from workbench.strategies import Strategy
from workbench.trace import Frame, walk
from workbench.transformer import TransformerSpec
from workbench.units import human_bytes

#: More ranks than this are not drawn: nobody could tell them apart.
MOST_RANKS = 8
#: Frames side by side in one row of a strip.
_COLUMNS = 7


def frames_of(
    spec: TransformerSpec, strategy: str | type[Strategy], p: int, shard: str | None = None
) -> list[Frame]:
    """The frames of one layer, for at most `MOST_RANKS` ranks."""
    if p > MOST_RANKS:
        raise ValueError(
            f"layouts are drawn for at most {MOST_RANKS} ranks, got p={p}: more can't be told "
            "apart. volume_bars and rank_matrix take any number"
        )
    return walk(spec, strategy, p, shard)


def layout_steps(
    spec: TransformerSpec, strategy: str | type[Strategy], p: int, shard: str | None = None
) -> go.Figure:
    """Step through one layer by a slider: who holds which part, who has sent what.

    Parameters
    ----------
    spec, strategy, p, shard
        As for `workbench.trace.walk`, which makes the frames; at most 8 ranks, 3 dims.

    Returns
    -------
    go.Figure
        One slider step an event; plotly.
    """
    frames = frames_of(spec, strategy, p, shard)
    pictures = [step_picture(frames, i) for i in range(len(frames))]
    figure, owners = go.Figure(), []
    for i, picture in enumerate(pictures):
        drawn = traces(picture, visible=i == 0)
        figure.add_traces(drawn)
        owners += [i] * len(drawn)
    steps = [
        {
            "method": "update",
            "label": str(i + 1),
            "args": [{"visible": [owner == i for owner in owners]}, {"title.text": _headline(f)}],
        }
        for i, f in enumerate(frames)
    ]
    page = pictures[0]
    slider = {"steps": steps, "active": 0, "pad": {"t": 10}, "currentvalue": {"prefix": "step "}}
    styled(figure, _headline(frames[0]), sliders=[slider])
    figure.update_layout(width=max(page.width, 480) + 40, height=page.height + 190)
    figure.update_layout(margin={"l": 20, "r": 20, "t": 70, "b": 20})
    figure.update_xaxes(visible=False, range=[0, max(page.width, 480)])
    figure.update_yaxes(visible=False, range=[page.height, 0])
    return captioned(figure, layout_caption(frames, _name(strategy)))


def layout_strip(
    spec: TransformerSpec, strategy: str | type[Strategy], p: int, shard: str | None = None
) -> Figure:
    """All steps of one layer side by side, to print; a row of panels a rank.

    Parameters
    ----------
    spec, strategy, p, shard
        As for `layout_steps`.
    """
    frames = frames_of(spec, strategy, p, shard)
    return captioned(printed(strip_picture(frames)), layout_caption(frames, _name(strategy)))


def layout_svg(frames: Sequence[Frame], strategy: str, step: int | None = None) -> str:
    """One step of a walk, or all of it for ``None``, as an SVG element with its caption."""
    picture = strip_picture(frames) if step is None else step_picture(frames, step, headline=True)
    return svg(picture, layout_caption(frames, strategy))


def step_picture(frames: Sequence[Frame], step: int, headline: bool = False) -> Picture:
    """All ranks side by side at one step."""
    frame, panel, top = frames[step], Panel.of(frames), 18.0
    page = Picture(0, 0)
    if headline:
        words = f"step {step + 1} of {len(frames)}: {frame.title}"
        page.marks.append(Text(20, 14, words, 14, "start", bold=True))
        page.marks.append(Text(20, 34, note(frame), 12, "start"))
        page.width, top = 560.0, 62.0
    columns = min(frame.p, 4)
    for rank in range(frame.p):
        x = 20 + 20 + rank % columns * (panel.width + 18)
        y = top + rank // columns * (panel.height + 58)
        page.marks.append(_rank_name(rank, x, y - 8))
        page.add(panel_picture(panel, frame, rank), x, y)
    page.marks.append(Text(20, page.height + 14, legend(panel), 11, "start"))
    page.height += 28
    return page


def strip_picture(frames: Sequence[Frame]) -> Picture:
    """All steps side by side; a row of panels a rank."""
    panel, p, page = Panel.of(frames), frames[0].p, Picture(0, 0)
    wide = max(panel.width + 16, 150)
    tall = p * (panel.height + 16) + 76
    for i, frame in enumerate(frames):
        row, column = divmod(i, _COLUMNS)
        left, top = 62 + column * wide, 10 + row * tall
        page.marks += _strip_head(frame, i, left, top)
        for rank in range(p):
            x, y = left, top + 58 + rank * (panel.height + 16)
            page.add(panel_picture(panel, frame, rank), x, y)
            if column == 0:
                page.marks.append(_rank_name(rank, 6, y + panel.height / 2))
    page.marks.append(Text(62, page.height + 12, legend(panel), 10, "start"))
    page.width += 10
    page.height += 24
    return page


def _strip_head(frame: Frame, i: int, left: float, top: float) -> list[Text]:
    along = " x ".join(frame.attended)
    if frame.event == "collective":
        count = len(frame.records)
        what = frame.records[0].kind + (f" x {count}" if count > 1 else "")
    elif frame.event == "hop":
        what = f"hop {frame.hop}: " + (f"K, V of r-{frame.hop}" if frame.hop else "own K, V")
    else:
        what = {"start": "start", "attend": f"attend {along}", "mlp": "MLP"}[frame.event]
    return [
        Text(left, top + 8, f"{i + 1}. {what}", 11, "start", bold=True),
        Text(left, top + 24, str(frame.layout), 9.5, "start"),
        Text(left, top + 39, note(frame), 9.5, "start"),
    ]


def _rank_name(rank: int, x: float, y: float) -> Text:
    return Text(x, y, f"rank {rank}", 11, "start", bold=True)


def _name(strategy: str | type[Strategy]) -> str:
    return strategy if isinstance(strategy, str) else strategy.name


def _headline(frame: Frame) -> str:
    cost = note(frame)
    return frame.title + (f"<br><sub>{cost}</sub>" if cost else "<br><sub>nothing is sent</sub>")


def layout_caption(frames: Sequence[Frame], strategy: str) -> str:
    """Say what a walk shows, with its numbers."""
    p, sent = frames[0].p, [f for f in frames if f.records]
    if not sent:
        moves = "nothing is sent"
    else:
        kinds = [record.kind for f in sent for record in f.records]
        counted = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        total = human_bytes(sum(f.sent_bytes for f in sent))
        moves = f"{counted}; each rank sends {total}"
    ranks = f"{p} rank{'s' * (p > 1)}"
    return (
        f"{strategy}, {ranks}, one layer forward in {len(frames)} steps: {moves}. "
        + marks_caption(frames)
    )


#: Collectives that leave sums, which came from all ranks.
_SUMS = ("reduce_scatter", "all_reduce")
_SHARES = {"model": "the width M", "heads": "the heads", "ff": "the MLP's hidden units"}


def marks_caption(frames: Sequence[Frame]) -> str:
    """Say what each kind of mark means, of those that pictures of these frames have."""
    moved = [f for f in frames if f.event == "collective"]
    kinds = {f.records[0].kind for f in moved}
    number = " and with the number" * bool(kinds.difference(_SUMS))
    origin = f", in the colour{number} of the rank it came from" * (frames[0].p > 1)
    bars = [words for name, words in _SHARES.items() if any(name in f.layout.sizes for f in frames)]
    said = {
        f"Solid: what a rank holds{origin}": True,
        "Σ: a sum over all": bool(kinds.intersection(_SUMS)),
        "Q: its queries; K,V: the keys and values that are with it; r: the rank itself": any(
            f.hop for f in frames
        ),
        "pale stripes: sent away": any(f.layout.split for f in moved),
        "grey stripes: padding, since p does not divide the dim": any(map(_padded, frames)),
        "arrows: where attention runs": any(f.attended for f in frames),
        f"thin bar: its share of {', '.join(bars)}": True,
    }
    return "; ".join(words for words, there in said.items() if there) + "."


def _padded(frame: Frame) -> bool:
    return frame.layout.split is not None and frame.layout.sizes[frame.layout.split] % frame.p > 0
