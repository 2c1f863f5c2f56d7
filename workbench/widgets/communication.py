"""How long a federated run would take, while the model, the links and the devices change."""

import ipywidgets as w

from workbench.cluster import DEVICES
from workbench.figures.communication import hours_svg
from workbench.units import human_bytes
from workbench.widgets.controls import choice, number
from workbench.widgets.shell import Explorer

#: Links to choose from [Mbit/s up]; down is five times as fast, as in the benchmark of 100/20.
UPLINKS = (1, 5, 20, 100, 1000)
RANKS = (1, 2, 4, 8, 16, 32, 64)
NONE = "none"  # None itself would leave the list blank
COMPRESSIONS = [(NONE, NONE), ("Bf16", "bf16"), ("Int8", "int8"), ("top 10 %", "topk")]
MOST = {"clients": 1000, "rounds": 1000, "steps": 200}
#: Share of a GPU's peak that training is taken to reach.
SHARE_OF_PEAK = 0.4


class BudgetExplorer(Explorer):
    """Hours of a run by part, adapters beside all weights; by assumption, not measured.

    Attributes
    ----------
    controls : dict of str to Widget
        ``"model"``, ``"rank"``, ``"uplink"``, ``"compression"``, ``"device"``, ``"clients"`` (of a
        round), ``"rounds"``, ``"steps"``.
    hours : dict
        What is trained -> part -> hours.
    picture, caption : ipywidgets.HTML
        The bars; what to see, with its numbers.
    """

    def __init__(self, model: str, rank: int, clients: int, uplink: int):
        from workbench.federated.scale import Assumptions
        from workbench.federated.sizes import MODELS

        self.models, self.hours = {each.name: each for each in MODELS}, {}
        gpu = SHARE_OF_PEAK * DEVICES["h100"].peak_flops_per_s
        devices = [("2 CPU cores", Assumptions().flop_per_s), ("H100 GPU", gpu)]
        links = [(f"{mbit} Mbit/s", mbit) for mbit in UPLINKS]
        chosen: dict[str, w.Dropdown] = {
            "model": choice("model", list(self.models), model),
            "rank": choice("rank", RANKS, rank),
            "uplink": choice("uplink", links, uplink),
            "compression": choice("compression", COMPRESSIONS, NONE),
            "device": choice("device", devices, devices[0][1]),
        }
        sized = {
            "clients": number("clients", clients, 1, MOST["clients"]),
            "rounds": number("rounds", 100, 1, MOST["rounds"]),
            "steps": number("local steps", 10, 1, MOST["steps"]),
        }
        super().__init__(chosen, sized)

    def _found(self, value) -> tuple[str, str]:
        from workbench.federated.scale import Assumptions, round_cost

        model, self.hours = self.models[value["model"]], {}
        for tune, name in (("lora", f"adapters, r = {value['rank']}"), ("full", "all weights")):
            given = Assumptions(
                rounds=value["rounds"],
                clients_per_round=value["clients"],
                local_steps=value["steps"],
                tune=tune,
                lora_rank=value["rank"],
                compression=None if value["compression"] == NONE else value["compression"],
                uplink_bytes_per_s=value["uplink"] * 1e6 / 8,
                downlink_bytes_per_s=5 * value["uplink"] * 1e6 / 8,
                flop_per_s=value["device"],
            )
            cost = round_cost(model, value["clients"], given)
            parts = (cost.download_s, cost.compute_s, cost.upload_s)
            names = ("download", "computing", "upload")
            self.hours[name] = {
                part: value["rounds"] * seconds / 3600
                for part, seconds in zip(names, parts, strict=True)
            }
        drawn, text = hours_svg(self.hours)
        share = given.server_bytes_per_s / cost.clients
        if share < given.downlink_bytes_per_s:
            text += f" A client's share of the server's port is {human_bytes(share)}/s, less than "
            text += "its own link carries."
        return drawn, text


def budget_explorer(
    model: str = "SmolLM2-135M", rank: int = 8, clients: int = 10, uplink: int = 20
) -> BudgetExplorer:
    """Explore how long a run takes, and on what.

    Parameters
    ----------
    model : str
        Name of one of `workbench.federated.sizes.MODELS`.
    rank : int
        Rank of the adapters, one of `RANKS`.
    clients : int
        Clients that train in a round.
    uplink : int
        A client's way up [Mbit/s], one of `UPLINKS`.
    """
    return BudgetExplorer(model, rank, clients, uplink)
