"""What each strategy holds at its peak, on a device of one's choice. Closed forms only."""

from dataclasses import replace

from workbench import figures
from workbench.closed_form import CHECKPOINTS
from workbench.cluster import DEVICES
from workbench.footprint import Memory, closed_form_memory, fits
from workbench.step import DTYPES
from workbench.strategies import STRATEGIES
from workbench.transformer import PRESETS, TransformerSpec
from workbench.widgets.controls import choice, number
from workbench.widgets.shell import Explorer

#: Most ranks, samples, layers and entries of a dim that the controls reach.
MOST = {"ranks p": 128, "batch": 64, "layers": 128, "size": 16384}
_OPTIMIZERS = [("none", None), ("SGD", "sgd"), ("AdamW", "adamw")]


class FitExplorer(Explorer):
    """Each strategy's peak, by kind, and a line at the memory of a device.

    Attributes
    ----------
    controls : dict of str to Widget
        ``"device"``, ``"checkpoint"``, ``"optimizer"``, ``"dtype"``, ``"p"``,
        ``"batch"``, ``"layers"``, and one by the name of each dim.
    rows : dict of str to Memory or str
        What is shown: by strategy its peak, or why it can't be run.
    picture, caption : ipywidgets.HTML
        The bars; what to see, with its numbers.
    """

    def __init__(self, spec: TransformerSpec, device: str, p: int):
        self.spec, self.rows = spec, {}
        chosen = {
            "device": choice("device", list(DEVICES), device),
            "checkpoint": choice("checkpoint", list(CHECKPOINTS), "none"),
            "optimizer": choice("optimizer", _OPTIMIZERS, "adamw"),
            "dtype": choice("dtype", list(DTYPES), "bfloat16"),
        }
        sized = {name: number(name, size, 1, MOST["size"]) for name, size in spec.dims.items()}
        sized["layers"] = number("layers", spec.num_layers, 1, MOST["layers"])
        sized["batch"] = number("batch", spec.batch, 1, MOST["batch"])
        sized["p"] = number("ranks p", p, 1, MOST["ranks p"])
        super().__init__(chosen, sized)

    def _found(self, value) -> tuple[str, str]:
        dims = {name: value[name] for name in self.spec.dims}
        spec = replace(self.spec, dims=dims, num_layers=value["layers"], batch=value["batch"])
        how = {name: value[name] for name in ("p", "checkpoint", "optimizer", "dtype")}
        self.rows = {name: _held(spec, name, how) for name in STRATEGIES}
        budget = DEVICES[value["device"]].memory_bytes
        text = figures.fit_caption(self.rows, budget) + _way_out(spec, self.rows, budget, how)
        return figures.fit_svg(self.rows, budget), text


def _held(spec: TransformerSpec, name: str, how: dict) -> Memory | str:
    try:
        return closed_form_memory(spec, name, **how)
    except ValueError as error:
        return str(error).split(". ")[0]


def _way_out(spec: TransformerSpec, rows: dict, budget: int, how: dict) -> str:
    """Where nothing fits, the smallest change that would make the smallest fit."""
    runs = {name: row.peak_bytes for name, row in rows.items() if not isinstance(row, str)}
    if not runs or min(runs.values()) <= budget:
        return ""
    least = min(runs, key=runs.get)
    change = fits(spec, least, budget, **how).way_out
    if change is None:
        return f" Nothing that was tried makes {least} fit."
    said = ", ".join(f"{name}={value!r}" for name, value in change.items())
    return f" The smallest change that makes {least} fit: {said}."


def fit_explorer(
    spec: TransformerSpec | None = None, device: str = "h100", p: int = 8
) -> FitExplorer:
    """Explore what a rank holds under each strategy, and whether a device has room for it.

    Parameters
    ----------
    spec : TransformerSpec or None
        The model to begin with; ``None`` takes STDiT-XL/2.
    device : str
        A key of `workbench.cluster.DEVICES`, to begin with.
    p : int
        Ranks to begin with.
    """
    return FitExplorer(spec or PRESETS["stdit-xl-2"], device, p)
