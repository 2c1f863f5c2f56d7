"""When a rank computes, copies, sends and waits: spans of a step, predicted or measured."""

from workbench.timeline.chakra import to_chakra
from workbench.timeline.measured import measured_timeline
from workbench.timeline.predicted import predicted_timeline
from workbench.timeline.spans import LANES, PARTS, Span, step_seconds, to_chrome, totals

__all__ = [
    "LANES",
    "PARTS",
    "Span",
    "measured_timeline",
    "predicted_timeline",
    "step_seconds",
    "to_chakra",
    "to_chrome",
    "totals",
]
