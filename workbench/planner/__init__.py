"""Which strategy, on which mesh, with how much memory: all ranked, and what would change it."""

from workbench.planner.curves import (
    Crossover,
    Point,
    Sensitivity,
    crossover,
    scaling,
    sensitivity,
    sweep,
)
from workbench.planner.plans import Plan, pareto, plan

__all__ = [
    "Crossover", "Plan", "Point", "Sensitivity", "crossover", "pareto", "plan", "scaling",
    "sensitivity", "sweep",
]  # fmt: skip
