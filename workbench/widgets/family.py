"""Two explorers of the family: ranks on a mesh, and the balance of a ring under a mask."""

from dataclasses import replace
from math import prod

from workbench import figures
from workbench.mesh import DATA
from workbench.step import fake_step
from workbench.strategies import MESHED, STRATEGIES
from workbench.transformer import PRESETS, TransformerSpec
from workbench.widgets.controls import choice, number
from workbench.widgets.shell import Explorer

#: Most ranks along an axis and in a node; most tokens and ranks of a ring.
MOST = {"axis": 8, "node": 64, "tokens": 96, "p": 8}


class MeshExplorer(Explorer):
    """Ranks as a grid, coloured by their group along each of two axes.

    Attributes
    ----------
    controls : dict of str to Widget
        ``"strategy"``, ``"axes"`` (the outer and the inner one), ``"outer"``, ``"inner"`` (ranks
        along them), ``"node"`` (ranks in a node), ``"kv"`` (heads of keys and values).
    step : FakedStep
        Whose log is shown.
    mesh : dict of str to int
        Ranks along each axis.
    picture, caption : ipywidgets.HTML
        The chart; what to see, with its numbers, or the reason why nothing is shown.
    """

    def __init__(self, spec: TransformerSpec):
        self.spec, self.step, self.mesh = spec, None, {}
        names = [*MESHED, *(name for name in STRATEGIES if name != "single")]
        chosen = {
            "strategy": choice("strategy", names, "usp"),
            "axes": choice("axes", _orders("usp"), ("ring", "ulysses")),
            "kv": choice("K, V heads", kv_head_counts(spec), spec.kv_heads),
        }
        sized = {
            "outer": number("outer axis", 2, 1, MOST["axis"]),
            "inner": number("inner axis", 4, 1, MOST["axis"]),
            "node": number("in a node", 4, 1, MOST["node"]),
        }
        chosen["strategy"].observe(self._rename, "value")  # ahead of drawing
        super().__init__(chosen, sized)

    def _rename(self, change) -> None:
        """Offer the strategy's own axes."""
        self.controls["axes"].options = _orders(change["new"])

    def _found(self, value) -> tuple[str, str]:
        self.step = None
        self.mesh = dict(zip(value["axes"], (value["outer"], value["inner"]), strict=True))
        spec = replace(self.spec, num_kv_heads=value["kv"])
        p = prod(self.mesh.values())
        self.step = fake_step(spec, value["strategy"], p=p, mesh=self.mesh)
        shown = (self.step, self.mesh, value["node"])
        return figures.mesh_svg(*shown), figures.mesh_caption(*shown)


def kv_head_counts(spec: TransformerSpec) -> list[int]:
    """All numbers of heads of keys and values that the model's heads can share."""
    return [heads for heads in range(1, spec.num_heads + 1) if spec.num_heads % heads == 0]


def _orders(strategy: str) -> list[tuple[str, tuple[str, str]]]:
    """Both orders of a strategy's axes, in words; one that has a single axis goes with data."""
    first, second = MESHED[strategy].axes if strategy in MESHED else ("sp", DATA)
    pairs = ((second, first), (first, second))
    return [(f"{outer} x {inner}", (outer, inner)) for outer, inner in pairs]


class BalanceExplorer(Explorer):
    """Who computes how much of a masked attention in a ring, in each order of the tokens.

    Attributes
    ----------
    controls : dict of str to Widget
        ``"tokens"``, ``"p"``, ``"order"`` (one, or all), ``"mask"``, ``"window"`` (0: none).
    balances : list of Balance
        What is shown.
    picture, caption : ipywidgets.HTML
        The chart; what to see, with its numbers, or the reason why nothing is shown.
    """

    def __init__(self, tokens: int, p: int):
        self.balances = []
        every = ("all of them", figures.ORDERS)
        chosen = {
            "order": choice("order", [every, *((o, (o,)) for o in figures.ORDERS)], figures.ORDERS),
            "mask": choice("mask", [("causal", True), ("none", False)], True),
        }
        sized = {
            "tokens": number("tokens", tokens, 1, MOST["tokens"]),
            "p": number("ranks p", p, 1, MOST["p"]),
            "window": number("window, 0: all", 0, 0, MOST["tokens"]),
        }
        super().__init__(chosen, sized)

    def _found(self, value) -> tuple[str, str]:
        mask = {"causal": value["mask"], "window": value["window"] or None}
        size, p = value["tokens"], value["p"]
        self.balances = [figures.balance(size, p, order, **mask) for order in value["order"]]
        return figures.balance_svg(self.balances), figures.balance_caption(self.balances)


def mesh_explorer(spec: TransformerSpec | None = None) -> MeshExplorer:
    """Explore who talks to whom along two axes, and how much leaves a node.

    Parameters
    ----------
    spec : TransformerSpec or None
        The model; ``None`` takes a small video of 8 heads.
    """
    return MeshExplorer(spec or replace(PRESETS["toy-video"], num_heads=8, batch=2))


def balance_explorer(tokens: int = 32, p: int = 4) -> BalanceExplorer:
    """Explore how evenly a ring's orders share out a masked attention.

    Parameters
    ----------
    tokens, p : int
        To begin with.
    """
    return BalanceExplorer(tokens, p)
