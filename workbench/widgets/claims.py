"""A claim's recorded effects, and the verdict for any smallest effect of interest."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import ipywidgets as w

from workbench.figures.claims import VERDICTS, Effect
from workbench.figures.marks import Picture, Text, rectangle, svg
from workbench.figures.style import INK, PALE
from workbench.widgets.controls import choice
from workbench.widgets.shown import caption_line

#: Factors on the smallest effect that was fixed beforehand.
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
_LEFT, _WIDTH, _MIDDLE = 30, 800, 46


@dataclass(frozen=True)
class Shown:
    """What the explorer shows of a claim: its sentence, the effect of each seed, the interval."""

    sentence: str
    effects: Sequence[float]
    effect: Effect


class ClaimExplorer(w.VBox):
    """One claim's seeds and interval beside the band of effects too small to matter.

    Attributes
    ----------
    controls : dict of str to Widget
        ``"claim"`` and ``"times"``, the factor on the smallest effect.
    picture, caption : ipywidgets.HTML
        The points and the band; the verdict in words.
    """

    def __init__(self, claims: Mapping[str, Shown], judge: Callable[[float, float, float], str]):
        self.claims, self.judge = claims, judge
        self.controls: dict[str, w.Widget] = {
            "claim": choice("claim", list(claims), next(iter(claims))),
            "times": choice("smallest x", FACTORS, 1.0),
        }
        self.picture, self.caption = w.HTML(), w.HTML()
        super().__init__([w.HBox(list(self.controls.values())), self.caption, self.picture])
        for control in self.controls.values():
            control.observe(self._draw, "value")
        self._draw()

    def _draw(self, change=None) -> None:
        shown = self.claims[self.controls["claim"].value]
        smallest = shown.effect.smallest * self.controls["times"].value
        said = self.judge(shown.effect.low, shown.effect.high, smallest)
        effect = replace(shown.effect, smallest=smallest, verdict=said)
        text = (
            f"{shown.sentence} Effect {effect.effect:+.3g} {effect.unit} (interval "
            f"{effect.low:+.3g} to {effect.high:+.3g}), {len(shown.effects)} seeds. With a "
            f"smallest effect [{effect.unit}] of {smallest:.3g}: {said}."
        )
        if len(set(shown.effects)) < len(shown.effects):
            text += " Equal seeds share a mark."
        self.caption.value = caption_line(text).value
        self.picture.value = seeds_svg(shown.effects, effect, text)


def seeds_svg(effects: Sequence[float], effect: Effect, text: str) -> str:
    """The band, the interval as a bar and each seed as a dot, to scale, as an SVG element."""
    most = 1.1 * max(map(abs, (*effects, effect.low, effect.high, 1.5 * effect.smallest)))

    def at(value: float) -> float:
        return _LEFT + _WIDTH * (value + most) / (2 * most)

    page, colour = Picture(_LEFT * 2 + _WIDTH, 96), VERDICTS[effect.verdict][0]
    page.marks.append(rectangle(at(-effect.smallest), 14, at(effect.smallest), 76, PALE))
    page.marks.append(rectangle(at(0) - 0.5, 14, at(0) + 0.5, 76, INK))
    low, high = at(effect.low), max(at(effect.high), at(effect.low) + 2)
    page.marks.append(rectangle(low, _MIDDLE - 7, high, _MIDDLE + 7, colour))
    for value in effects:
        page.marks.append(rectangle(at(value) - 3, 26, at(value) + 3, 66, INK, tip=f"{value:+.3g}"))
    for value in (part * most for part in (-0.8, -0.4, 0.0, 0.4, 0.8)):
        text_at = f"{value:+.2g} {effect.unit}" if value else "0"
        page.marks.append(rectangle(at(value) - 0.5, 76, at(value) + 0.5, 81, INK))
        page.marks.append(Text(at(value), 90, text_at, 12, "middle"))
    return svg(page, text)


def claim_explorer(
    claims: Mapping[str, Shown], judge: Callable[[float, float, float], str]
) -> ClaimExplorer:
    """Look at one claim at a time, and ask what a stricter or laxer reader would have said.

    Parameters
    ----------
    claims : mapping
        Claim -> what to show of it.
    judge : callable
        (low, high, smallest) -> verdict, such as `workbench.federated.claims.verdict`.
    """
    return ClaimExplorer(claims, judge)
