"""The machines that a model might run on: devices, links, clusters; and known ones, with sources.

Every number of a known machine is a `Figure`: a float that remembers its kind and its source.
"""

from workbench.cluster.figure import KINDS, Figure
from workbench.cluster.parts import Cluster, Device, Link
from workbench.cluster.presets import CLUSTERS, DEVICES
from workbench.cluster.table import FigureRow, figures_of

__all__ = ["CLUSTERS", "DEVICES", "KINDS", "Cluster", "Device", "Figure", "FigureRow", "Link",
           "figures_of"]  # fmt: skip
