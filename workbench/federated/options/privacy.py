"""Differential privacy of a client, by the server's noise or by its own."""

from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.federated.option import Option, check_number, check_one_of


@dataclass(frozen=True)
class Privacy(Option):
    """Privacy of a client; the family's base."""

    family: ClassVar[str] = "privacy"

    def check(self) -> None:
        check_number(self, "clip_norm")
        check_number(self, "delta", below=1.0)


@dataclass(frozen=True)
class CentralDP(Privacy):
    """A trusted server clips each client's update and adds noise to the sum.

    ``w += (sum of clipped updates + N(0, (noise_multiplier clip_norm)^2)) / clients_per_round``,
    with equal weights. The unit is a client. Noise comes from the task's seed, so whoever knows
    the seed can take it away; the losses that a history shows carry none; and rounding of
    floating-point noise is not accounted for.

    Parameters
    ----------
    noise_multiplier : float
        Standard deviation of the noise on the sum, in units of ``clip_norm``; 0.001 to 1e6.
    clip_norm : float
        Largest Euclidean norm of a client's update.
    delta : float
        The probability with which epsilon need not hold.
    sampling : {"poisson", "fixed"}
        Each client on its own with probability clients_per_round / num_clients, or exactly
        clients_per_round of them; the accounting differs.
    """

    noise_multiplier: float = 1.0
    clip_norm: float = 1.0
    delta: float = 1e-5
    sampling: str = "poisson"

    def check(self) -> None:
        check_number(self, "noise_multiplier", least=1e-3, most=1e6)  # beyond, epsilon is lost
        super().check()
        check_one_of(self, "sampling", ("poisson", "fixed"))

    def describe(self, task: Any) -> str:
        """The unit, the neighbouring relation and q: what an epsilon is of."""
        q = task.clients_per_round / task.num_clients
        relation = {"poisson": "add or remove one client", "fixed": "replace one client"}
        return f"unit: a client; {relation[self.sampling]}; {self.sampling} sampling, q={q:g}"


@dataclass(frozen=True)
class LocalDP(Privacy):
    """Each client clips its update and adds noise before it sends.

    The noise is calibrated for one round at sensitivity ``2 clip_norm``; a history composes it
    over the rounds in which a client trained. The unit is a client, and one is replaced.

    Here each client draws its noise from the task's seed, its number and the round, so that runs
    can be repeated. The server knows all three and can take the noise away: epsilon holds against
    whoever does not know the seed. In life a client draws from a secret of its own. As with
    `CentralDP`, losses carry no noise, and rounding of floating-point noise is not accounted for.

    Parameters
    ----------
    epsilon, delta : float
        Of one client in one round.
    clip_norm : float
        Largest Euclidean norm of a client's update.
    """

    epsilon: float = 1.0
    clip_norm: float = 1.0
    delta: float = 1e-5

    def check(self) -> None:
        check_number(self, "epsilon")
        super().check()

    def describe(self, task: Any) -> str:
        """The unit and the neighbouring relation: what an epsilon is of."""
        return "unit: a client; replace one client; no sampling counted, q=1"
