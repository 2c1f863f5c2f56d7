"""Which strategy, on which mesh, with how much memory: all ranked, and what would change it."""

from workbench.planner.bands import Band, band_of, validated
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
    "Band", "Crossover", "Plan", "Point", "Sensitivity", "band_of", "crossover", "pareto", "plan",
    "scaling", "sensitivity", "sweep", "validated",
]  # fmt: skip
