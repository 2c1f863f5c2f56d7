"""The mean of the clients' models."""

from dataclasses import dataclass

from workbench.federated.methods.base import Method
from workbench.federated.option import check_one_of


@dataclass(frozen=True)
class FedAvg(Method):
    """``w = sum p_k w_k`` with ``p_k`` by training rows or uniform; Flower's own mean.

    Parameters
    ----------
    weighting : {"examples", "uniform"}
        Whether a client counts by its training rows, or all the same.

    References
    ----------
    McMahan et al., arXiv 1602.05629.
    """

    weighting: str = "examples"

    def check(self) -> None:
        check_one_of(self, "weighting", ("examples", "uniform"))

    def rows_weigh(self) -> bool:
        return self.weighting == "examples"
