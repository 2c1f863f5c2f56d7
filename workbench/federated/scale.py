"""Scale on paper: what the same task costs with more clients and with larger models.

Bytes are the closed forms of `traffic`, which real runs are held against. Seconds and hours follow
from `Assumptions`, each of which is a field with its source, to be changed by the reader.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import exp
from statistics import NormalDist

import pandas as pd

from workbench.federated.options import as_option
from workbench.federated.options.compression import Compression
from workbench.federated.options.system import DOWNLINK, UPLINK
from workbench.federated.sizes import MODELS, ModelSize
from workbench.federated.traffic import arrays_bytes, numbers_bytes

#: Numbers of clients of the table.
CLIENTS = (10, 100, 1_000, 10_000, 100_000)
#: Floating-point operations for each weight and token: 2 forward, 2 backward to the activations,
#: and 2 more to the weights if all are trained. Source of the 6: Kaplan et al., arXiv 2001.08361,
#: section 2; that 2 of them fall away for adapters is our deduction.
FLOPS = {"lora": 4, "full": 6}


_CHOICE = "a choice of ours; change it"
#: Unit and source of each assumption.
SOURCES = {
    "rounds": ("rounds", f"{_CHOICE}: rounds to a target have to be measured"),
    "clients_per_round": (
        "clients, at most",
        f"{_CHOICE}; a few hundred suffice: Bonawitz et al., arXiv 1902.01046",
    ),
    "local_steps": ("steps", _CHOICE),
    "batch_tokens": ("tokens a step", f"{_CHOICE}: 8 rows of 64 tokens"),
    "tune": ("lora or full", _CHOICE),
    "lora_rank": ("rows of A", _CHOICE),
    "compression": ("of the way up", _CHOICE),
    "uplink_bytes_per_s": ("B/s", "FCC 24-27 (2024), broadband: 20 Mbit/s up"),
    "downlink_bytes_per_s": ("B/s", "FCC 24-27 (2024), broadband: 100 Mbit/s down"),
    "server_bytes_per_s": ("B/s each way", f"{_CHOICE}: one port of 10 Gbit/s for all clients"),
    "flop_per_s": (
        "flop/s",
        "measured: LoRA on SmolLM2-135M, 8 x 64 tokens in 3.7 s on 2 busy CPU cores",
    ),
    "speed_sigma": ("of ln(speed)", f"{_CHOICE}: two thirds of clients within a factor of 1.65"),
    "weight_bytes": ("B a weight", "weights held in bfloat16"),
}


@dataclass(frozen=True)
class Assumptions:
    """What `scale_cost` takes for granted; `to_frame` lists each with its unit and source.

    Left out: latency, evaluation, clients that fail, the transport's own headers (less than a
    fifth for large messages), the memory of activations, and that more or less equal clients may
    need fewer or more rounds. How many rounds a target needs has to be measured.

    Raises
    ------
    ValueError
        For a number that is not above 0, or an unknown ``tune`` or ``compression``.
    """

    rounds: int = 100
    clients_per_round: int = 100
    local_steps: int = 10
    batch_tokens: int = 8 * 64
    tune: str = "lora"
    lora_rank: int = 8
    compression: Compression | str | None = None
    uplink_bytes_per_s: float = UPLINK
    downlink_bytes_per_s: float = DOWNLINK
    server_bytes_per_s: float = 10e9 / 8
    flop_per_s: float = 7.4e10
    speed_sigma: float = 0.5
    weight_bytes: float = 2

    def __post_init__(self):
        object.__setattr__(self, "compression", as_option("compression", self.compression))
        if self.tune not in FLOPS:
            raise ValueError(f"tune={self.tune!r}; there is a closed form for {list(FLOPS)}.")
        for each in fields(self):
            value = getattr(self, each.name)
            if each.type in (int, float) and not _is_positive(value):
                if each.name == "speed_sigma" and value == 0:
                    continue
                raise ValueError(f"{each.name}={value!r}; it is a finite number above 0.")
            if each.type is int and not isinstance(value, int):
                raise ValueError(f"{each.name}={value!r}; it is a whole number above 0.")

    def to_frame(self) -> pd.DataFrame:
        """Each assumption: its value, unit and source; a changed one is the reader's."""
        rows = []
        for each in fields(self):
            value, (unit, source) = getattr(self, each.name), SOURCES[each.name]
            source = source if value == each.default else "yours"
            rows.append({"assumption": each.name, "value": value, "unit": unit, "source": source})
        return pd.DataFrame(rows)


@dataclass(frozen=True)
class RoundCost:
    """One round of one model with ``clients`` taking part: bytes, and seconds by the assumptions.

    Parameters
    ----------
    up_bytes, down_bytes : int
        From and to one client.
    download_s, compute_s, upload_s : float
        Until the last client has the model, has trained, and has sent its update.
    """

    clients: int
    up_bytes: int
    down_bytes: int
    download_s: float
    compute_s: float
    upload_s: float

    @property
    def bytes(self) -> int:
        """Both ways, all clients of the round."""
        return self.clients * (self.up_bytes + self.down_bytes)

    @property
    def seconds(self) -> float:
        """The round from first byte to last."""
        return self.download_s + self.compute_s + self.upload_s


def round_cost(model: ModelSize, num_clients: int, given: Assumptions) -> RoundCost:
    """The cost of one round.

    A transfer takes as long as the slower of a client's own link and the server's, which all
    clients of the round share. Computing takes ``flops tokens weights / flop_per_s``, times
    `slowest`: the server waits for the last client.
    """
    taking_part = min(num_clients, given.clients_per_round)
    up, down = client_bytes(model, given)
    at_server = taking_part / given.server_bytes_per_s
    tokens = given.local_steps * given.batch_tokens
    compute = FLOPS[given.tune] * model.parameters * tokens / given.flop_per_s
    return RoundCost(
        taking_part,
        up,
        down,
        down * max(1 / given.downlink_bytes_per_s, at_server),
        compute * slowest(taking_part, given.speed_sigma),
        up * max(1 / given.uplink_bytes_per_s, at_server),
    )


def client_bytes(model: ModelSize, given: Assumptions) -> tuple[int, int]:
    """What a client sends and gets in a round of FedAvg: Flower's count, as `round_traffic`."""
    specs, packed = model.specs(given.tune, given.lora_rank), given.compression
    stateful = packed is not None and packed.stateful
    up, down = numbers_bytes(stateful)
    up += arrays_bytes(specs if packed is None else packed.wire(specs))
    return up, down + arrays_bytes(specs)


def slowest(clients: int, sigma: float) -> float:
    """How many times the median client's time the slowest of a round takes.

    The median of the largest of ``clients`` log-normal times: ``exp(sigma z)`` with
    ``Phi(z) = 2 ** (-1 / clients)``.

    Examples
    --------
    >>> round(slowest(1, 0.5), 2), round(slowest(100, 0.5), 2)
    (1.0, 3.42)
    """
    return exp(sigma * NormalDist().inv_cdf(2 ** (-1 / clients)))


def scale_cost(
    given: Assumptions | None = None,
    clients: Sequence[int] = CLIENTS,
    models: Sequence[ModelSize] = MODELS,
) -> pd.DataFrame:
    """What the same task costs: one row for each model and number of clients.

    Columns: ``parameters``; ``clients`` and how many ``taking_part`` in a round; ``up_bytes`` and
    ``down_bytes`` of one client in one round; ``run_bytes``, all clients and rounds, both ways;
    ``round_s`` and its parts; ``hours`` of the whole run; ``rounds_per_client``, how often a client
    takes part on average; ``weights_bytes``, what a client holds, and ``first_hours``, how long
    it takes to fetch them once, which ``hours`` leaves out. Seconds are assumptions, not measured.

    Examples
    --------
    >>> table = scale_cost(clients=[10, 1000])
    >>> table["model"].nunique(), len(table)
    (5, 10)
    """
    given, rows = given or Assumptions(), []
    for model in models:
        for count in clients:
            if type(count) is not int or count < 1:
                raise ValueError(f"clients={list(clients)}; each is a whole number of at least 1.")
            cost = round_cost(model, count, given)
            held = int(model.parameters * given.weight_bytes)
            parts = {name: getattr(cost, name) for name in ("download_s", "compute_s", "upload_s")}
            rows.append(
                {
                    "model": model.name,
                    "parameters": model.parameters,
                    "clients": count,
                    "taking_part": cost.clients,
                    "up_bytes": cost.up_bytes,
                    "down_bytes": cost.down_bytes,
                    "run_bytes": given.rounds * cost.bytes,
                    **parts,
                    "round_s": cost.seconds,
                    "hours": given.rounds * cost.seconds / 3600,
                    "rounds_per_client": given.rounds * cost.clients / count,
                    "weights_bytes": held,
                    "first_hours": held / given.downlink_bytes_per_s / 3600,
                }
            )
    return pd.DataFrame(rows)


def _is_positive(value: object) -> bool:
    """Whether it is a finite number above 0."""
    return type(value) in (int, float) and 0 < value < float("inf")
