"""Data in, a plotly or matplotlib figure out: pure, never shown here, each with its caption."""

try:
    import matplotlib  # noqa: F401
    import plotly  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"workbench.figures needs {error.name}: pip install 'workbench[notebooks]'"
    ) from None

from workbench.figures.balance import (
    ORDERS,
    Balance,
    balance,
    balance_caption,
    balance_chart,
    balance_svg,
)
from workbench.figures.comparison import Comparison, comparison
from workbench.figures.fitting import (
    FOOTPRINT_COLOURS,
    fit_caption,
    fit_chart,
    fit_svg,
    peak_curves,
)
from workbench.figures.layouts import (
    MOST_RANKS,
    frames_of,
    layout_caption,
    layout_steps,
    layout_strip,
    layout_svg,
)
from workbench.figures.links import checked_steps, cluster_picture, link_lines
from workbench.figures.logs import log_timeline, memory_bars, rank_matrix, times
from workbench.figures.memory import KIND_COLOURS, memory_caption, memory_chart, memory_svg
from workbench.figures.meshes import (
    AxisTraffic,
    axis_traffic,
    groups_along,
    mesh_caption,
    mesh_chart,
    mesh_svg,
)
from workbench.figures.plans import pareto_chart, plan_caption, plan_svg
from workbench.figures.published import published_bars, residuals
from workbench.figures.scaling import scaling_chart
from workbench.figures.schedules import (
    VARIANTS,
    own_timetable,
    schedule_caption,
    schedule_chart,
    schedule_svg,
    timetable,
)
from workbench.figures.seconds import PARTS, lowest_changes, step_parts, time_curves
from workbench.figures.style import COLOURS, caption, captioned, image, rank_colours
from workbench.figures.timelines import timeline
from workbench.figures.volumes import Volume, head_counts, volume_bars, volume_curves, volumes
from workbench.figures.wires import nodes_and_wires, wire_times, wires_caption, wires_svg

__all__ = [
    "COLOURS",
    "FOOTPRINT_COLOURS",
    "KIND_COLOURS",
    "MOST_RANKS",
    "ORDERS",
    "PARTS",
    "VARIANTS",
    "AxisTraffic",
    "Balance",
    "Comparison",
    "Volume",
    "axis_traffic",
    "balance",
    "balance_caption",
    "balance_chart",
    "balance_svg",
    "caption",
    "captioned",
    "checked_steps",
    "cluster_picture",
    "comparison",
    "fit_caption",
    "fit_chart",
    "fit_svg",
    "frames_of",
    "groups_along",
    "head_counts",
    "image",
    "layout_caption",
    "layout_steps",
    "layout_strip",
    "layout_svg",
    "link_lines",
    "log_timeline",
    "lowest_changes",
    "memory_bars",
    "memory_caption",
    "memory_chart",
    "memory_svg",
    "mesh_caption",
    "mesh_chart",
    "mesh_svg",
    "nodes_and_wires",
    "own_timetable",
    "pareto_chart",
    "peak_curves",
    "plan_caption",
    "plan_svg",
    "published_bars",
    "rank_colours",
    "rank_matrix",
    "residuals",
    "scaling_chart",
    "schedule_caption",
    "schedule_chart",
    "schedule_svg",
    "step_parts",
    "time_curves",
    "timeline",
    "times",
    "timetable",
    "volume_bars",
    "volume_curves",
    "volumes",
    "wire_times",
    "wires_caption",
    "wires_svg",
]
