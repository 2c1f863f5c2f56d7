"""This machine as a cluster: measured rates and latencies, and predictions held against it."""

from workbench.calibration.calibrated import calibrate, cluster_of
from workbench.calibration.grid import Checked, Point, check, median_error
from workbench.calibration.lines import Line, line
from workbench.calibration.measured import Measured, Row, measure

__all__ = ["Checked", "Line", "Measured", "Point", "Row", "calibrate", "check", "cluster_of",
           "line", "measure", "median_error"]  # fmt: skip
