"""Controls around figures; no arithmetic here."""

try:
    import ipywidgets  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"workbench.widgets needs {error.name}: pip install 'workbench[notebooks]'"
    ) from None

from workbench.widgets.dashboard import Dashboard
from workbench.widgets.explorer import Compare, compare
from workbench.widgets.family import (
    BalanceExplorer,
    MeshExplorer,
    balance_explorer,
    mesh_explorer,
)
from workbench.widgets.fitting import FitExplorer, fit_explorer
from workbench.widgets.memory import MemoryExplorer, memory
from workbench.widgets.planner import PlanExplorer, plan_explorer
from workbench.widgets.player import LayoutPlayer, layout_player
from workbench.widgets.schedules import Schedules, schedules
from workbench.widgets.shown import show
from workbench.widgets.wires import WireExplorer, wire_explorer

__all__ = [
    "BalanceExplorer",
    "Compare",
    "Dashboard",
    "FitExplorer",
    "LayoutPlayer",
    "MemoryExplorer",
    "MeshExplorer",
    "PlanExplorer",
    "Schedules",
    "WireExplorer",
    "balance_explorer",
    "compare",
    "fit_explorer",
    "layout_player",
    "memory",
    "mesh_explorer",
    "plan_explorer",
    "schedules",
    "show",
    "wire_explorer",
]
