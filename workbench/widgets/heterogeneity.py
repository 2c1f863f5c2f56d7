"""Who holds what, while the partition, its concentration, clients and seed change."""

from collections import Counter

import ipywidgets as w

from workbench.datasets import load
from workbench.figures.heterogeneity import holdings_svg
from workbench.widgets.controls import choice, number
from workbench.widgets.shell import Explorer

#: Concentrations to choose from; small is skewed.
ALPHAS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 10.0, 100.0)
KINDS = ("natural", "iid", "label skew", "quantity skew")
WITHOUT_ALPHA = ("natural", "iid")
MOST = {"clients": 20, "seed": 99}


class PartitionExplorer(Explorer):
    """The clients that a task would have: a bar each, coloured by source.

    Attributes
    ----------
    controls : dict of str to Widget
        ``"partition"``, ``"alpha"``, ``"clients"``, ``"seed"``.
    held : list of dict
        For each client, source -> rows to train on.
    picture, caption : ipywidgets.HTML
        The bars; what to see, or why there can be no such clients.
    """

    def __init__(self, dataset: str, alpha: float, clients: int):
        self.dataset, self.rows, self.held = dataset, load(dataset), []
        chosen: dict[str, w.Dropdown] = {
            "partition": choice("partition", KINDS, KINDS[2]),
            "alpha": choice("alpha", ALPHAS, alpha),
        }
        sized = {
            "clients": number("clients", clients, 2, MOST["clients"]),
            "seed": number("seed", 0, 0, MOST["seed"]),
        }
        super().__init__(chosen, sized)

    def _found(self, value) -> tuple[str, str]:
        self.controls["alpha"].disabled = value["partition"] in WITHOUT_ALPHA
        self.held = dealt(self.dataset, self.rows, value)
        return holdings_svg(self.held, "pairs" if self.dataset == "chatterbot" else "texts")


def dealt(dataset: str, rows: list[dict], value: dict) -> list[dict[str, int]]:
    """For each client of such a task, source -> rows to train on; as `clients_of` deals them."""
    from workbench.federated import Dirichlet, FederatedTask, Iid, Natural, QuantitySkew
    from workbench.federated.partition import clients_of

    alpha = value["alpha"]
    partitions = (Natural(), Iid(), Dirichlet(alpha), QuantitySkew(alpha))
    partition = dict(zip(KINDS, partitions, strict=True))[value["partition"]]
    task = FederatedTask(
        model="minilm" if dataset == "chatterbot" else "smollm2-135m",
        dataset=dataset,
        num_clients=value["clients"],
        clients_per_round=1,
        seed=value["seed"],
        partition=partition,
    )
    clients = clients_of(task, rows)
    return [dict(Counter(str(row["client"]) for row in c.train)) for c in clients]


def partition_explorer(
    dataset: str = "chatterbot", alpha: float = 0.5, clients: int = 8
) -> PartitionExplorer:
    """Explore who holds what under each partition.

    Parameters
    ----------
    dataset : {"chatterbot", "sotu"}
        The data, by topic or by president.
    alpha : float
        Concentration to begin with, one of `ALPHAS`.
    clients : int
        Clients to begin with.
    """
    return PartitionExplorer(dataset, alpha, clients)
