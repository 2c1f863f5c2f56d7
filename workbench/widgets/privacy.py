"""How much privacy a run spends, while noise, clients and rounds change; by dp-accounting."""

from math import sqrt

from workbench.figures.privacy import epsilon_svg
from workbench.widgets.controls import choice, number
from workbench.widgets.shell import Explorer

#: Noise multipliers to choose from, and most clients and rounds.
NOISE, MOST = (0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 4.0, 8.0), {"clients": 100_000, "rounds": 1000}
#: Numbers of an adapter to choose from: those of the project's models at r = 8, and a small head.
#: Source: `workbench.federated.lora.adapter_shapes`; a test holds them against it.
NUMBERS = {"MiniLM, r = 8": 73_728, "SmolLM2, r = 8": 460_800, "1,000 numbers": 1000}
#: The probability with which epsilon need not hold.
DELTA = 1e-5


class EpsilonExplorer(Explorer):
    """Epsilon after a quarter, a half and all of the rounds, for both kinds of sampling.

    Attributes
    ----------
    controls : dict of str to Widget
        ``"noise"``, ``"numbers"``, ``"clients"``, ``"sampled"``, ``"rounds"``.
    spent : dict
        Kind of sampling -> rounds -> epsilon, as shown.
    picture, caption : ipywidgets.HTML
        The bars; what to see, with its numbers.
    """

    def __init__(self, noise: float, clients: int, sampled: int, rounds: int):
        self.spent: dict[str, dict[int, float]] = {}
        chosen = {
            "noise": choice("noise z", NOISE, noise),
            "numbers": choice("numbers", list(NUMBERS), next(iter(NUMBERS))),
        }
        sized = {
            "clients": number("clients", clients, 2, MOST["clients"]),
            "sampled": number("in a round", sampled, 1, MOST["clients"]),
            "rounds": number("rounds", rounds, 1, MOST["rounds"]),
        }
        super().__init__(chosen, sized)

    def _found(self, value) -> tuple[str, str]:
        sampled, clients = value["sampled"], value["clients"]
        if sampled > clients:
            raise ValueError(f"{sampled} clients in a round of {clients} clients")
        self.spent = budget(value["noise"], clients, sampled, value["rounds"])
        numbers = NUMBERS[value["numbers"]]
        ratio = value["noise"] * sqrt(numbers) / sampled
        what = (
            f"Unit: a client; poisson: one added or removed, fixed: one replaced; "
            f"q = {sampled / clients:.3g}, delta = {DELTA:g}. The noise on the mean is "
            f"z sqrt(d) / m = {ratio:.3g} times as long as the longest change that clipping lets "
            f"through, with d = {numbers:,} numbers and m = {sampled:,} clients in a round."
        )
        return epsilon_svg(self.spent, what)


def budget(noise: float, clients: int, sampled: int, rounds: int) -> dict[str, dict[int, float]]:
    """Kind of sampling -> rounds -> epsilon, at a quarter, a half and all of the rounds."""
    from workbench.federated import CentralDP
    from workbench.federated.accounting import epsilon_after

    counts = sorted({max(1, rounds // 4), max(1, rounds // 2), rounds})
    found = {}
    for kind in ("poisson", "fixed"):
        privacy = CentralDP(noise, delta=DELTA, sampling=kind)
        spent = epsilon_after(privacy, sampled, clients, counts)
        found[kind] = dict(zip(counts, spent, strict=True))
    return found


def epsilon_explorer(
    noise: float = 1.0, clients: int = 1000, sampled: int = 50, rounds: int = 100
) -> EpsilonExplorer:
    """Explore the privacy that a run with central noise spends.

    Parameters
    ----------
    noise : float
        z, one of `NOISE`: standard deviation of the noise on the sum, in units of the clip norm.
    clients, sampled, rounds : int
        Clients there are, clients in a round (q is their ratio), and rounds.
    """
    return EpsilonExplorer(noise, clients, sampled, rounds)
