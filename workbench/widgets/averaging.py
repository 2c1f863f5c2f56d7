"""What averaging low-rank factors misses, while rank, spread and the number of clients change."""

from math import sqrt

from workbench.figures.averaging import gap_caption, gap_svg
from workbench.widgets.controls import choice, number
from workbench.widgets.shell import Explorer

#: Ranks and spreads to choose from; most clients; the shape of the weight (MiniLM's).
RANKS, SPREADS, MOST = (1, 2, 4, 8, 16, 32, 64), (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0), 100
SHAPE = (384, 384)


class GapExplorer(Explorer):
    """The exact mean of B A, the product of the means, and what it misses; closed form.

    Attributes
    ----------
    controls : dict of str to Widget
        ``"rank"``, ``"spread"`` (a client's own part, in units of the common one), ``"clients"``.
    sizes : tuple of float
        Root mean square of a number: of the exact mean, the product of the means, what is missed.
    picture, caption : ipywidgets.HTML
        The bars; what to see, with its numbers.
    """

    def __init__(self, rank: int, spread: float, clients: int):
        self.sizes = (0.0, 0.0, 0.0)
        chosen = {
            "rank": choice("rank", RANKS, rank),
            "spread": choice("spread", SPREADS, spread),
        }
        super().__init__(chosen, {"clients": number("clients", clients, 1, MOST)})

    def _found(self, value) -> tuple[str, str]:
        self.sizes = sizes(value["rank"], value["spread"], value["clients"])
        count = value["clients"]
        what = (
            f"{count} client{'s' * (count > 1)}, rank {value['rank']}, spread {value['spread']:g}"
        )
        return gap_svg(*self.sizes, what), gap_caption(*self.sizes, what)


def sizes(rank: int, spread: float, clients: int) -> tuple[float, float, float]:
    """Root mean square of a number: the exact mean, the product of the means, what is missed."""
    from workbench.federated.averaging import expected_gap

    gap, per = expected_gap(rank, spread, clients, SHAPE), sqrt(SHAPE[0] * SHAPE[1])
    # on average, what is missed stands at a right angle to the product of the means
    apart = sqrt(max(0.0, gap.exact**2 - gap.missed**2))
    return gap.exact / per, apart / per, gap.missed / per


def gap_explorer(rank: int = 8, spread: float = 1.0, clients: int = 8) -> GapExplorer:
    """Explore the error of averaging A and B apart.

    Parameters
    ----------
    rank : int
        To begin with, one of `RANKS`.
    spread : float
        How far a client's factors are from the common ones, one of `SPREADS`, to begin with.
    clients : int
        To begin with.
    """
    return GapExplorer(rank, spread, clients)
