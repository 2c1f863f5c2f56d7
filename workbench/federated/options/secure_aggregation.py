"""Secure aggregation: the server sees the sum of the updates and no single one."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log2
from typing import Any, ClassVar

from workbench.federated.option import Option, check_number, check_whole

#: Masked numbers are counted modulo this. Source: SecAggPlusWorkflow's ``modulus_range``.
MODULUS = 2**32
#: A sum of one update is that update.
FEWEST = 2


@dataclass(frozen=True)
class SecAggPlus(Option):
    """Masks that cancel in the sum, with shares of their seeds at other clients.

    Losses and numbers of rows still travel in the clear, nobody can check a masked update, and
    the server is taken to follow the protocol: keys are not signed. The smallest and the largest
    number of rows are taken to be known.

    Parameters
    ----------
    threshold : float
        Share of the round's clients, rounded up and at least 2, that must answer to the end: so
        many shares rebuild a lost client's mask.
    clipping_range : float
        C: changes are clipped to this size, number by number, before they are quantised.
    bits : int
        Levels of the quantisation: 2 to the power of this; clients times levels stay below 2^32.

    References
    ----------
    Bell et al., Secure Single-Server Aggregation with (Poly)Logarithmic Overhead, 2020,
    https://eprint.iacr.org/2020/704
    """

    family: ClassVar[str] = "secure_aggregation"
    threshold: float = 0.6
    clipping_range: float = 8.0
    bits: int = 20

    def check(self) -> None:
        check_number(self, "threshold", most=1.0)
        check_number(self, "clipping_range")
        check_whole(self, "bits", 2, 30)

    def check_task(self, task: Any) -> None:
        self.check_clients(task.clients_per_round)

    def check_clients(self, clients: int) -> None:
        """Refuse a sum that hides nobody, or that does not fit into 32 bits."""
        if clients < FEWEST:
            raise ValueError(
                f"SecAggPlus with {clients} clients in a round: the sum of one update is that "
                f"update. Take clients_per_round of at least {FEWEST}."
            )
        if clients * 2**self.bits >= MODULUS:
            most = (MODULUS - 1) // clients
            raise ValueError(
                f"SecAggPlus: bits={self.bits} with {clients} clients in a round; their sum can "
                f"reach {clients} x 2^{self.bits}, and must stay below 2^32. Take bits of at most "
                f"{most.bit_length() - 1}."
            )

    def needed(self, clients: int) -> int:
        """How many of a round's clients must answer to the end."""
        return max(FEWEST, ceil(self.threshold * clients - 1e-9))

    @property
    def step(self) -> float:
        """Width of one level: ``2 C / 2^bits``."""
        return 2 * self.clipping_range / 2**self.bits

    def levels(self, clients: int, spread: float = 1.0) -> int:
        """Levels in use: ``2^bits``, and more where weights differ, as far as 2^32 allows.

        A light client's levels are wide in the mean. With ``1.5 spread`` times as many levels the
        mean is still off by less than one step.

        Parameters
        ----------
        spread : float
            The largest weight that a client can have, over the smallest.
        """
        more = 0 if spread == 1 else ceil(log2(1.5 * spread))
        fits = ((MODULUS - 1) // clients).bit_length() - 1
        return 2 ** max(self.bits, min(self.bits + more, fits))

    def error_bound(
        self, weights: Sequence[int], levels: int | None = None, most: int | None = None
    ) -> float:
        """How far a number of the mean can be from the exact weighted mean of clipped changes.

        With T levels, a client's weight travels as ``q_k = round(T n_k / most)`` and its change as
        ``q_k x_k / T``, rounded at random to one of the two nearest levels: less than one level
        away. So the mean is off by less than ``C (2 K + D) / sum q_k``, where K is the number of
        clients and D what rounding did to the weights. With equal weights that is one step.

        Parameters
        ----------
        weights : sequence of int
            Training rows n_k, or all the same, of the clients that are in the sum.
        levels : int or None
            T; ``None`` is ``2^bits``.
        most : int or None
            The most rows that a client can have; ``None`` is the largest weight.

        Examples
        --------
        >>> option = SecAggPlus(clipping_range=8.0, bits=20)
        >>> option.error_bound([1, 1, 1]) == option.step
        True
        >>> option.error_bound([10, 90], option.levels(2, spread=9)) < option.step
        True
        """
        levels = levels or 2**self.bits
        exact = [levels * n / (most or max(weights)) for n in weights]
        sent = [round(q) for q in exact]
        moved = sum(abs(q - e) for q, e in zip(sent, exact, strict=True))
        moved += abs(sum(sent) - sum(exact))
        return self.clipping_range * (2 * len(weights) + moved) / sum(sent)
