"""What checkpointing and accumulation save and cost, while ranks and sizes change."""

from dataclasses import replace

from workbench import figures
from workbench.closed_form import CHECKPOINTS, SWITCHES
from workbench.memory import AtPeak, at_peak
from workbench.strategies import STRATEGIES
from workbench.transformer import TransformerSpec
from workbench.widgets.controls import choice, number
from workbench.widgets.shell import Explorer

#: Most ranks, samples, parts, layers and entries of a dim that the controls reach.
MOST = {"ranks p": 16, "batch": 16, "accumulate": 16, "layers": 4, "size": 128}


class MemoryExplorer(Explorer):
    """The peak of one rank: as chosen, beside the same strategy that keeps everything.

    Attributes
    ----------
    controls : dict of str to Widget
        One by the name of each dim, ``"layers"``, ``"batch"``, ``"p"``, ``"accumulate"``,
        ``"strategy"``, ``"checkpoint"``, ``"switch"``.
    rows : dict of str to AtPeak
        What is shown; empty where it can't be.
    picture, caption : ipywidgets.HTML
        The bars; what to see, with its numbers, or the reason why nothing is shown.
    """

    def __init__(self, spec: TransformerSpec, p: int):
        self.spec: TransformerSpec = spec
        self.rows: dict[str, AtPeak] = {}
        sized = {n: number(n, size, 1, MOST["size"]) for n, size in spec.dims.items()}
        sized["layers"] = number("layers", spec.num_layers, 1, MOST["layers"])
        sized["batch"] = number("batch", spec.batch, 1, MOST["batch"])
        sized["p"] = number("ranks p", p, 1, MOST["ranks p"])
        sized["accumulate"] = number("accumulate", 1, 1, MOST["accumulate"])
        chosen = {
            "strategy": choice("strategy", list(STRATEGIES), "dsp"),
            "checkpoint": choice("checkpoint", list(CHECKPOINTS), "block"),
            "switch": choice("switch", list(SWITCHES), SWITCHES[0]),
        }
        super().__init__(chosen, sized)

    def _found(self, value: dict) -> tuple[str, str]:
        self.rows = {}
        dims = {name: value[name] for name in self.spec.dims}
        spec = replace(self.spec, dims=dims, num_layers=value["layers"], batch=value["batch"])
        chosen = {name: value[name] for name in ("checkpoint", "switch", "accumulate")}
        self.rows = {
            "keeps everything": at_peak(spec, value["strategy"], p=value["p"]),
            "as chosen": at_peak(spec, value["strategy"], p=value["p"], **chosen),
        }
        return figures.memory_svg(self.rows), figures.memory_caption(self.rows)


def memory(spec: TransformerSpec, p: int = 4) -> MemoryExplorer:
    """Explore what one rank holds, sends and computes while memory is traded for work.

    Parameters
    ----------
    spec : TransformerSpec
        The model to begin with; a small one, as each change fakes two steps.
    p : int
        Ranks to begin with.
    """
    return MemoryExplorer(spec, p)
