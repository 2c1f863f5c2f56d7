"""Which dim is cut while the model attends along which: stages in a row, a row of dims each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure

from workbench.dims import Stage
from workbench.figures.marks import Arrow, Picture, Text, printed, rectangle, svg
from workbench.figures.style import COLOURS, PALE, captioned
from workbench.layout import shard_size
from workbench.strategies import choose_shard, select
from workbench.strategies.dsp import aside
from workbench.strategies.schedule import SCHEDULES, switch_elements
from workbench.transformer import TransformerSpec
from workbench.units import human_bytes

#: DSP's schedules, and switching around one attention, by the names that charts take.
VARIANTS: dict[str, dict[str, str]] = {
    **{name: {"schedule": name} for name in SCHEDULES},
    "attention": {"around": "attention"},
}
#: Pixels: one stage, one dim, the gap between layers, the column of names.
_CELL, _ROW, _GAP, _NAMES = 26, 20, 10, 104
_WRONG = "#D55E00"


@dataclass(frozen=True)
class Turn:
    """One stage's turn.

    Attributes
    ----------
    layer : int
        Of the model.
    attended : tuple of str
        The dims that attention runs along.
    stream, cut : str
        The dim that is cut in the residual stream, and in the attention.
    moves : tuple of (from, to)
        The switches before it and, around one attention, after it.
    """

    layer: int
    attended: Stage
    stream: str
    cut: str
    moves: tuple[tuple[str, str], ...]

    @property
    def possible(self) -> bool:
        """Tell whether attention finds its dims whole."""
        return self.cut not in self.attended


@dataclass(frozen=True)
class Timetable:
    """All turns of a model, and what one rank sends forward for them."""

    name: str
    p: int
    start: str
    turns: tuple[Turn, ...]
    sent_bytes: int

    @property
    def switches(self) -> int:
        """Switches forward."""
        return sum(len(turn.moves) for turn in self.turns)

    @property
    def possible(self) -> bool:
        """Tell whether every attention finds its dims whole."""
        return all(turn.possible for turn in self.turns)


def timetable(
    spec: TransformerSpec, name: str, p: int, shard: str | None = None, dtype: str = "float32"
) -> Timetable:
    """The turns of DSP by the schedule ``name``, or around ``"attention"``.

    Parameters
    ----------
    spec, p, shard, dtype
        As for `workbench.step.fake_step`.
    name : {"lazy", "eager", "bytes", "attention"}
        A key of `VARIANTS`.

    Raises
    ------
    ValueError
        If DSP can't run this, or if there is only one rank.
    """
    cls = select("dsp", spec, p, **VARIANTS[name])
    if p == 1:
        raise ValueError("one rank cuts nothing; a schedule is for p=2 ranks or more, got p=1")
    shard = choose_shard(cls, spec, p, spec.branches, shard)
    if name != "attention":
        stages = spec.stages * spec.num_layers
        cuts = list(SCHEDULES[name](spec, p, shard, stages))
        return own_timetable(spec, cuts, p, shard, dtype, name)
    turns = []
    for layer, stage in _turns(spec):
        cut = aside(spec, p, shard, stage) if shard in stage else shard
        moves = ((shard, cut), (cut, shard)) if cut != shard else ()
        turns.append(Turn(layer, stage, shard, cut, moves))
    return _counted(spec, "around attention", p, shard, turns, dtype)


def own_timetable(
    spec: TransformerSpec, cuts: Sequence[str], p: int, shard: str,
    dtype: str = "float32", name: str = "yours",
) -> Timetable:  # fmt: skip
    """The turns of a schedule that is given as the dim to cut in each stage, one after another."""
    turns, before = [], shard
    for (layer, stage), cut in zip(_turns(spec), cuts, strict=True):
        moves = ((before, cut),) if before != cut else ()
        turns.append(Turn(layer, stage, cut, cut, moves))
        before = cut
    return _counted(spec, name, p, shard, turns, dtype)


def _turns(spec):
    return [(layer, stage) for layer in range(spec.num_layers) for stage in spec.stages]


def _counted(spec, name, p, shard, turns, dtype) -> Timetable:
    moves = [move for turn in turns for move in turn.moves]
    sent = sum(switch_elements(spec, p, *move) for move in moves)
    return Timetable(name, p, shard, tuple(turns), sent * getattr(torch, dtype).itemsize)


def schedule_chart(spec: TransformerSpec, tables: Sequence[Timetable]) -> Figure:
    """Schedules below each other: filled is the cut dim, outlined what is attended along.

    Parameters
    ----------
    spec : TransformerSpec
        The model that the tables are for.
    tables : sequence of Timetable
        As `timetable` and `own_timetable` make them.
    """
    return captioned(printed(_chart(spec, tables)), schedule_caption(spec, tables))


def schedule_svg(spec: TransformerSpec, tables: Sequence[Timetable]) -> str:
    """`schedule_chart` as an SVG element."""
    return svg(_chart(spec, tables), schedule_caption(spec, tables))


def _chart(spec, tables) -> Picture:
    page = Picture(0, 6)
    for each in tables:
        page.add(_rows(spec, each), 8, page.height)
    page.width = max(page.width, 460)
    return page


def _rows(spec, found: Timetable) -> Picture:
    """One timetable: a column for the start and one a stage; an arrow for each switch."""
    rows = {dim: 44 + _ROW * i for i, dim in enumerate(spec.dims)}
    page = Picture(0, 44 + _ROW * len(rows) + 14)
    page.marks.append(Text(0, 10, _headline(found), 12, "start", bold=True))
    for dim, y in rows.items():
        size, padded = spec.dims[dim], shard_size(spec.dims[dim], found.p) * found.p
        words = f"{dim} {size}" + (f"→{padded}" if padded > size else "")
        page.marks.append(Text(_NAMES - 8, y + _ROW / 2, words, 11, "end"))
    x, before, layer, over = _NAMES, found.start, -1, []
    page.marks += [Text(x + _CELL / 2, 32, "start", 9.5), *_column(rows, x, (found.start,))]
    for number, turn in enumerate(found.turns, start=1):
        left, x = x, x + _CELL + _GAP * (turn.layer != layer)
        page.marks += _heads(x, number, turn, spec, first=turn.layer != layer)
        page.marks += _column(rows, x, (turn.cut, turn.stream), turn)
        over += [*_outlines(rows, x, turn), *_arrows(rows, left + _CELL, x, before, turn)]
        before, layer = turn.stream, turn.layer
    page.marks += over
    page.width = max(x + _CELL + 12, 7.2 * len(_headline(found)))
    return page


def _heads(x: float, number: int, turn: Turn, spec, first: bool):
    """The layer where it begins; of a model of one layer the stages' numbers."""
    if spec.num_layers == 1:
        yield Text(x + _CELL / 2, 32, str(number), 9.5)
    elif first:
        yield Text(x + 2, 32, f"layer {turn.layer}", 9.5, "start")


def _column(rows: Mapping[str, float], x: float, cut: Sequence[str], turn: Turn | None = None):
    for dim, y in rows.items():
        fill = COLOURS["dsp"] if dim in cut else None
        tip = f"{dim} is cut" if fill else f"{dim} is whole"
        # The stream's cut, while attention has another one, is striped.
        striped = turn is not None and turn.stream != turn.cut and dim == turn.stream
        box = (x + 2, y + 2, x + _CELL - 2, y + _ROW - 2)
        yield rectangle(*box, fill, edge=PALE, hatched=striped, tip=tip)


def _outlines(rows: Mapping[str, float], x: float, turn: Turn):
    for dim in turn.attended:
        y, wrong = rows[dim], dim == turn.cut
        box = (x + 2, y + 2, x + _CELL - 2, y + _ROW - 2)
        yield rectangle(*box, None, edge=_WRONG if wrong else "#222222", width=2.4)
        if wrong:
            yield Text(x + _CELL / 2, y + _ROW / 2, "✗", 13, bold=True)


def _arrows(rows: Mapping[str, float], left: float, x: float, before: str, turn: Turn):
    middle = _ROW / 2
    if len(turn.moves) == 1:
        yield Arrow((left - 5, rows[before] + middle), (x + 5, rows[turn.cut] + middle), 1)
    elif turn.moves:
        centre = x + _CELL / 2
        yield Arrow((centre, rows[turn.stream] + middle), (centre, rows[turn.cut] + middle), 2)


def _headline(found: Timetable) -> str:
    layers = found.turns[-1].layer + 1
    each = f" ({found.switches / layers:.2f} a layer)" if layers > 1 else ""
    sent = f"{found.switches} switches{each}, each rank sends {human_bytes(found.sent_bytes)}"
    return f"{found.name}: {sent if found.possible else 'not possible, see ✗'}"


def schedule_caption(spec: TransformerSpec, tables: Sequence[Timetable]) -> str:
    """Say what a chart shows, with its numbers."""
    layers = spec.num_layers
    head = f"Forward, {layers} layer{'s' * (layers > 1)} of {len(spec.stages)} stages. "
    counts = "; ".join(_headline(each) for each in tables)
    moved = any(turn.moves for each in tables for turn in each.turns)
    striped = any(turn.stream != turn.cut for each in tables for turn in each.turns)
    said = {
        "Filled: the cut dim; outlined: attended along": True,
        "→: with its padding, where it is cut": any(
            size % tables[0].p for size in spec.dims.values()
        ),
        "striped: cut in the residual stream, but not in this attention": striped,
        "arrows: switches": moved,
        "✗: attention along a cut dim": not all(each.possible for each in tables),
    }
    return f"{head}{counts}. {'; '.join(words for words, there in said.items() if there)}."
