"""What others have published, each figure with its source and grade, beside ours.

Volumes come from the log (`volume_table`), seconds from `workbench.cost`: those of the paper
(`table`) and of the other methods' authors (`peers`).
"""

from workbench.published.figure3 import BARS, H800, Bar, fig3_throughput
from workbench.published.fit import fit, left_out
from workbench.published.grades import GRADES
from workbench.published.latency import LATENCIES, Latency, inference_latency
from workbench.published.peers import peers, whole_flops
from workbench.published.table import PublishedRow, table
from workbench.published.volumes import VolumeRow, volume_table

__all__ = [
    "BARS", "GRADES", "H800", "LATENCIES", "Bar", "Latency", "PublishedRow", "VolumeRow",
    "fig3_throughput", "fit", "inference_latency", "left_out", "peers", "table", "volume_table",
    "whole_flops",
]  # fmt: skip
