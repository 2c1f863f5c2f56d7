"""Which strategy on which machine, ranked anew as sizes and machine change. Closed forms only."""

from dataclasses import replace

from workbench import figures
from workbench.closed_form import CHECKPOINTS
from workbench.cluster import CLUSTERS
from workbench.planner import plan
from workbench.strategies import STRATEGIES
from workbench.transformer import PRESETS, TransformerSpec
from workbench.widgets.controls import choice, number
from workbench.widgets.shell import Explorer

#: Most ranks, samples and entries of a dim that the controls reach.
MOST = {"ranks p": 128, "batch": 32, "size": 16384}


class PlanExplorer(Explorer):
    """Strategies on all ranks of a machine, the best first, or why one doesn't fit.

    Attributes
    ----------
    controls : dict of str to Widget
        ``"cluster"``, ``"checkpoint"``, ``"fsdp"``, ``"mode"``, ``"p"``, ``"batch"``, and one by
        the name of each dim.
    plans : list of Plan
        What is shown; empty where it can't be.
    picture, caption : ipywidgets.HTML
        The bars; what to see, with its numbers, or the reason why nothing is shown.
    """

    def __init__(self, spec: TransformerSpec, cluster: str, p: int):
        self.spec, self.plans = spec, []
        chosen = {
            "cluster": choice("cluster", list(CLUSTERS), cluster),
            "checkpoint": choice("checkpoint", list(CHECKPOINTS), "none"),
            "fsdp": choice("FSDP", [("no", False), ("yes", True)], False),
            "mode": choice("mode", ["train", "inference"], "train"),
        }
        sized = {name: number(name, size, 1, MOST["size"]) for name, size in spec.dims.items()}
        sized["batch"] = number("batch", spec.batch, 1, MOST["batch"])
        sized["p"] = number("ranks p", p, 1, MOST["ranks p"])
        super().__init__(chosen, sized)

    def _found(self, value) -> tuple[str, str]:
        self.plans = []
        dims = {name: value[name] for name in self.spec.dims}
        self.plans = plan(
            replace(self.spec, dims=dims, batch=value["batch"]), CLUSTERS[value["cluster"]],
            p=value["p"], mode=value["mode"], strategies=STRATEGIES, meshes=False,
            checkpoints=(value["checkpoint"],), fsdp=(value["fsdp"],), accumulate=1,
        )  # fmt: skip
        return figures.plan_svg(self.plans), figures.plan_caption(self.plans)


def plan_explorer(
    spec: TransformerSpec | None = None, cluster: str = "dgx-h100", p: int = 8
) -> PlanExplorer:
    """Explore which strategy is best on a machine, what binds it, and what no longer fits.

    Parameters
    ----------
    spec : TransformerSpec or None
        The model to begin with; ``None`` takes STDiT-XL/2.
    cluster : str
        A key of `workbench.CLUSTERS`, to begin with.
    p : int
        Ranks to begin with.
    """
    return PlanExplorer(spec or PRESETS["stdit-xl-2"], cluster, p)
