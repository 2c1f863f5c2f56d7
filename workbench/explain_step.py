"""What a step sends, as a table to read: each collective with its layouts, bytes and formula."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby, zip_longest
from typing import NamedTuple

from workbench.collectives import SENT_PER_INPUT_BYTE, Collective
from workbench.step import fake_step
from workbench.strategies import Strategy, by_name
from workbench.transformer import TransformerSpec
from workbench.units import human_bytes

#: Layers of a model that are shown. Those that follow send the same, unless a schedule over three
#: dims or more has a longer period.
LAYERS = 2
_HEAD = ("phase", "layer", "stage", "collective", "layouts", "sent a rank", "of M", "formula")


class Line(NamedTuple):
    """One or more equal collectives that follow each other.

    ``sent_bytes`` is what one rank sends in all of them; ``share`` the same over M, the bytes of
    the whole activation.
    """

    phase: str
    layer: int | None
    stage: tuple[str, ...]
    kind: str
    axis: str
    count: int
    layouts: str
    sent_bytes: int
    share: Fraction
    formula: str

    def cells(self) -> tuple[str, ...]:
        """The line as it is shown."""
        times = f"{self.count} x " if self.count > 1 else ""
        where = "" if self.axis in ("sp", "*") else f" along {self.axis}"
        layer = "" if self.layer is None else str(self.layer)
        return (
            self.phase, layer, " x ".join(self.stage), f"{times}{self.kind}{where}", self.layouts,
            human_bytes(self.sent_bytes), f"{float(self.share):.3g}", self.formula,
        )  # fmt: skip


@dataclass(frozen=True)
class Explanation:
    """The collectives of one training step; shown as a table in a notebook and by ``print``.

    Attributes
    ----------
    strategy, p : str, int
        What was asked.
    formula, source : str
        The strategy's volume as it is published, and where.
    lines : tuple of Line
        Of the first layers, forward and backward, and of all weights' gradients.
    """

    strategy: str
    p: int
    formula: str
    source: str
    lines: tuple[Line, ...]
    layers: int
    of_layers: int

    def total(self, phase: str) -> int:
        """Bytes that one rank sends in the layers that are shown, and for no layer in special."""
        return sum(line.sent_bytes for line in self.lines if line.phase == phase)

    @property
    def phases(self) -> tuple[str, ...]:
        """Phases of a step; ``"weights"``, which FSDP gathers, only where they are sent."""
        return _PHASES if self.total("weights") else _PHASES[:-1]

    @property
    def title(self) -> str:
        """What is shown, in a sentence."""
        sent = ", ".join(f"{phase} {human_bytes(self.total(phase))}" for phase in self.phases)
        shown = f"{self.layers} of {self.of_layers} layers"
        return f"{self.strategy} on {self.p} ranks, {shown}: {sent}. {self.formula} ({self.source})"

    def __str__(self) -> str:
        rows = [_HEAD, *(line.cells() for line in self.lines)]
        return f"{self.title}\n{_aligned(rows)}"

    def _repr_markdown_(self) -> str:
        return f"**{self.title}**\n\n{_markdown(_HEAD, [line.cells() for line in self.lines])}"


_PHASES = ("forward", "backward", "gradients", "weights")


def explain(
    spec: TransformerSpec, strategy: str | type[Strategy], p: int, **options
) -> Explanation:
    """List what one rank communicates in a training step, forward and backward.

    Parameters
    ----------
    spec, strategy, p, **options
        As for `fake_step`, whose log this reads.

    Raises
    ------
    ValueError
        If the strategy can't run this; the message names those that can.

    Examples
    --------
    >>> from workbench.transformer import PRESETS
    >>> steps = explain(PRESETS["toy-video"], "dsp", 4, shard="time").lines
    >>> [(line.phase, line.kind, line.layouts) for line in steps][0]
    ('forward', 'all_to_all', '[B, T/sp, S, M] -> [B, T, S/sp, M]')
    """
    cls, step = by_name(strategy), fake_step(spec, strategy, p=p, **options)
    m, mesh = spec.activation_bytes(step.dtype), options.get("mesh") or {}
    shown = (r for r in step.log if r.layer is None or r.layer < LAYERS)
    lines = (_line(list(same), spec, m, mesh, p) for _, same in groupby(shown, _alike))
    layers = min(LAYERS, spec.num_layers)
    return Explanation(
        step.strategy, p, cls.formula, cls.source, tuple(lines), layers, spec.num_layers
    )


def _alike(record: Collective) -> tuple:
    layouts = (str(record.before), str(record.after)) if record.kind != "ring_shift" else ()
    return (record.phase, record.layer, record.stage, record.kind, record.axis, record.dim, layouts)


def _line(same: list[Collective], spec: TransformerSpec, m: int, mesh, p: int) -> Line:
    record, sent = same[0], sum(r.sent_bytes for r in same)
    stage = () if record.stage is None else tuple(spec.stages[record.stage])
    layouts = f"{record.before} -> {record.after}" if record.before else "one flat bucket"
    size = mesh.get(record.axis, p)
    numerator, denominator = SENT_PER_INPUT_BYTE[record.kind](size)
    factor = str(numerator) if denominator == 1 else f"{numerator}/{denominator}"
    formula = f"{factor} x {human_bytes(sum(r.input_bytes for r in same))}"
    return Line(
        record.phase, record.layer, stage, record.kind, record.axis, len(same), layouts, sent,
        Fraction(sent, m), formula,
    )  # fmt: skip


class Difference(NamedTuple):
    """Two explanations, line by line within each phase, layer and stage."""

    a: Explanation
    b: Explanation

    def rows(self) -> Iterator[tuple[Line | None, Line | None]]:
        """Pairs of lines of the same phase, layer and stage; None where one has fewer."""
        places = dict.fromkeys(_place(line) for line in (*self.a.lines, *self.b.lines))
        for place in sorted(places, key=_order):
            sides = ([x for x in side.lines if _place(x) == place] for side in self)
            yield from zip_longest(*sides)

    def _cells(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        head = ("phase", "layer", "stage", self.a.strategy, "sends", self.b.strategy, "sends")
        rows = []
        for a, b in self.rows():
            both = [x.cells() if x else ("",) * len(_HEAD) for x in (a, b)]
            rows.append((*(a or b).cells()[:3], both[0][3], both[0][5], both[1][3], both[1][5]))
        for phase in max(self.a.phases, self.b.phases, key=len):
            x, y = self.a.total(phase), self.b.total(phase)
            ratio = f"{human_bytes(y)} = {y / x:.3g} of it" if x else human_bytes(y)
            rows.append((f"{phase}, in all", "", "", "", human_bytes(x), "", ratio))
        return head, rows

    def __str__(self) -> str:
        head, rows = self._cells()
        return _aligned([head, *rows])

    def _repr_markdown_(self) -> str:
        return _markdown(*self._cells())


def diff(a: Explanation, b: Explanation) -> Difference:
    """Put two explanations of the same model side by side.

    Examples
    --------
    >>> from workbench.transformer import PRESETS
    >>> video = PRESETS["toy-video"]
    >>> beside = diff(explain(video, "dsp", 4), explain(video, "ulysses", 4))
    >>> beside.a.total("forward") < beside.b.total("forward")
    True
    """
    return Difference(a, b)


def _place(line: Line) -> tuple:
    return line.phase, line.layer, line.stage


def _order(place: tuple) -> tuple:
    """Forward by layer, backward from the last one, gradients at the end."""
    phase, layer, _ = place
    layer = layer or 0
    return _PHASES.index(phase), -layer if phase == "backward" else layer


def _aligned(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
    )
    return "\n".join(lines)


def _markdown(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    table = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in table)
