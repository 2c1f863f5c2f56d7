"""Memory by arithmetic: `closed_form_memory` and `fits`, equal to a faked step's peak."""

from workbench.footprint.fit import Fit, fits
from workbench.footprint.form import KINDS, Memory, closed_form_memory

__all__ = ["KINDS", "Fit", "Memory", "closed_form_memory", "fits"]
