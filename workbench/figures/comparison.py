"""The picture of the explorer: volumes of all strategies, layouts of the chosen ones. SVG only."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import shorten

from workbench.figures.layouts import MOST_RANKS, frames_of, marks_caption, strip_picture
from workbench.figures.marks import Picture, Text, rectangle, svg
from workbench.figures.style import colour_of
from workbench.figures.volumes import Volume, volume_caption, volumes
from workbench.trace import Frame
from workbench.transformer import TransformerSpec
from workbench.units import human_bytes

#: Pixels of the longest bar, and of one row.
_LONGEST, _ROW = 360, 24
_LINE = 110  # characters of a reason in one line


@dataclass(frozen=True)
class Comparison:
    """What the explorer shows for one choice of the controls."""

    volumes: list[Volume]
    svg: str
    caption: str


def comparison(
    spec: TransformerSpec, p: int, chosen: Sequence[str], dtype: str = "float32"
) -> Comparison:
    """Volumes of all strategies by closed form, and the layouts of the ``chosen`` ones."""
    found = volumes(spec, p, dtype=dtype)
    page, text = bars_picture(found), volume_caption(spec, p, found, dtype)
    frames = [f for name in dict.fromkeys(chosen) for f in _add_layouts(page, spec, name, p)]
    text += f" In the layouts: {marks_caption(frames)}" if frames else ""
    return Comparison(found, svg(page, text), text)


def bars_picture(found: Sequence[Volume]) -> Picture:
    """One row a strategy: forward solid, backward striped; or why it refuses."""
    page = Picture(820, 34 + _ROW * len(found))
    head = "sent by one rank in one step: forward (solid) + backward (striped)"
    page.marks.append(Text(110, 12, head, 11, "start", bold=True))
    page.marks.append(Text(620, 12, "weights' gradients, apart", 11, "start", bold=True))
    longest = max((v.sent_bytes for v in found if not v.refusal), default=0) or 1
    for i, volume in enumerate(found):
        y = 26 + _ROW * i
        page.marks.append(Text(104, y + 9, volume.strategy, 12, "end"))
        page.marks += _row(volume, y, _LONGEST / longest)
    return page


def _row(volume: Volume, y: float, scale: float) -> list:
    if volume.refusal:
        words = "refuses: " + _reason(volume.strategy, volume.refusal)
        return [Text(112, y + 9, words, 10, "start", colour="#A00000")]
    sent, x, marks = volume.bytes_by_phase, 110.0, []
    for phase in ("forward", "backward"):
        end = x + sent[phase] * scale
        bar = rectangle(x, y, end, y + 17, colour_of(volume.strategy), hatched=phase == "backward",
                        tip=f"{volume.strategy}, {phase}: {sent[phase]:,} B")  # fmt: skip
        marks, x = [*marks, bar], end
    marks.append(Text(x + 6, y + 9, human_bytes(volume.sent_bytes), 11, "start"))
    marks.append(Text(620, y + 9, human_bytes(sent["gradients"]), 11, "start"))
    return marks


def _reason(strategy: str, refusal: str) -> str:
    """The first sentence of a refusal, without the strategy's name, short enough for a row."""
    reason = refusal.split(". ")[0].removeprefix(strategy + " ")
    return shorten(reason, _LINE, placeholder=" …")


def _add_layouts(page: Picture, spec: TransformerSpec, name: str, p: int) -> list[Frame]:
    """Draw one layer under a strategy, or say why not; return what is drawn."""
    top = page.height + 14
    try:
        frames = frames_of(spec, name, p)
    except ValueError as error:
        words = "refuses: " + _reason(name, str(error))
        words = f"no layouts above {MOST_RANKS} ranks" if p > MOST_RANKS else words
        page.marks.append(Text(20, top + 8, f"{name}: {words}", 11, "start"))
        page.height = top + 20
        return []
    strip = strip_picture(frames)
    page.marks.append(rectangle(0, top, 8, top + strip.height, colour_of(name)))
    page.marks.append(Text(16, top + 10, f"{name}: one layer forward", 13, "start", bold=True))
    page.add(strip, 10, top + 18)
    return frames
