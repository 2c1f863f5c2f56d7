"""What travels in a federated run, while clients, rounds and the adapters' rank change."""

from functools import lru_cache

import ipywidgets as w

from workbench.figures.federated import traffic_svg
from workbench.widgets.controls import choice, number, with_slider
from workbench.widgets.shown import caption_line

#: Ranks to choose from, and most clients and rounds.
RANKS, MOST = (1, 2, 4, 8, 16, 32, 64), {"clients": 100, "rounds": 200}


class Traffic(w.VBox):
    """Bytes of adapters beside those of all weights, by closed form.

    Attributes
    ----------
    controls : dict of str to Widget
        ``"model"``, ``"rank"``, ``"clients"``, ``"rounds"``.
    picture, caption : ipywidgets.HTML
        The bars; what to see, with its numbers.
    """

    def __init__(self, model: str, rank: int, clients: int, rounds: int):
        self.controls: dict[str, w.Widget] = {
            "model": choice("model", ("minilm", "smollm2-135m"), model),
            "rank": choice("rank", RANKS, rank),
            "clients": number("clients", clients, 1, MOST["clients"]),
            "rounds": number("rounds", rounds, 1, MOST["rounds"]),
        }
        self.picture, self.caption = w.HTML(), w.HTML()
        chosen, counted = (
            [control for control in self.controls.values() if isinstance(control, kind)]
            for kind in (w.Dropdown, w.BoundedIntText)
        )
        panel = w.HBox([w.VBox(chosen), w.VBox(list(map(with_slider, counted)))])
        super().__init__([panel, self.caption, self.picture])
        for control in self.controls.values():
            control.observe(self._draw, "value")
        self._draw()

    def _draw(self, change=None) -> None:
        value = {name: control.value for name, control in self.controls.items()}
        sent = client_bytes(value["model"], value["rank"])
        self.picture.value, text = traffic_svg(sent, value["clients"], value["rounds"])
        self.caption.value = caption_line(text).value


@lru_cache(maxsize=2 * len(RANKS))  # two models, each with all ranks
def client_bytes(model: str, rank: int) -> dict[str, int]:
    """What one client sends and gets in a round: adapters of this rank, and all weights."""
    from workbench.federated import FederatedTask, round_traffic

    task = FederatedTask(model=model, dataset="chatterbot", clients_per_round=1, lora_rank=rank)
    named = {f"adapters, r = {rank}": "lora", "all weights": "full"}
    both = {name: round_traffic(task, tune) for name, tune in named.items()}
    return {name: sent.uplink_bytes + sent.downlink_bytes for name, sent in both.items()}


def traffic(model: str = "minilm", rank: int = 8, clients: int = 4, rounds: int = 10) -> Traffic:
    """Explore what travels while the model, the rank, clients and rounds change.

    Parameters
    ----------
    model : {"minilm", "smollm2-135m"}
        The model to begin with.
    rank : int
        Rank of the adapters to begin with, one of `RANKS`.
    clients, rounds : int
        Clients that train in a round, and rounds, to begin with.
    """
    return Traffic(model, rank, clients, rounds)
