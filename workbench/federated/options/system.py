"""A simulated clock: how fast clients are, who is there, who is too late."""

from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.federated.option import Option, check_number

#: Seconds of a step of 8 rows, by model: LoRA by AdamW, measured on 2 cores of a busy server
#: (MiniLM: 100 steps in 16 s; SmolLM2: rows of 64 tokens). Other models have no default.
STEP_S = {"minilm": 0.16, "smollm2-135m": 3.7}
STEP_ROWS = 8
#: Bytes per second of a client's link. Source: the US regulator's benchmark for broadband of 2024,
#: 20 Mbit/s up and 100 Mbit/s down (FCC 24-27).
UPLINK, DOWNLINK = 20e6 / 8, 100e6 / 8


@dataclass(frozen=True)
class System(Option):
    """Clients of unlike speed on a simulated clock; its seconds are not measured.

    A client that is asked answers after ``bytes down / downlink + steps step_s / speed + bytes up /
    uplink`` simulated seconds. Its speed is ``exp(speed_sigma z)``, z standard normal, the same in
    all rounds. Who is late or drops out trains nothing, keeps nothing and sends nothing; what it
    was sent counts. `workbench.federated.simulated_clock` shows who that is. A deployment refuses a
    system: its clients have speeds of their own.

    Parameters
    ----------
    speed_sigma : float
        Spread of the logarithm of the clients' speeds; the median client has speed 1.
    deadline_s : float or None
        A client that needs longer is left out of the round [simulated s].
    dropout : float
        Chance that a client that was asked does not answer. The server waits for it until the
        deadline or, without one, until its answer was due.
    availability : float
        Chance that a client can be asked in a round.
    step_s : float or None
        Time of one step of the optimizer at speed 1 [simulated s]; ``None`` takes what was measured
        for the model, in proportion to ``batch_size``.
    uplink_bytes_per_s, downlink_bytes_per_s : float
        A client's link; latency, and the server's own link, are left out.
    """

    family: ClassVar[str] = "system"
    speed_sigma: float = 0.5
    deadline_s: float | None = None
    dropout: float = 0.0
    availability: float = 1.0
    step_s: float | None = None
    uplink_bytes_per_s: float = UPLINK
    downlink_bytes_per_s: float = DOWNLINK

    def check(self) -> None:
        check_number(self, "speed_sigma", least=0.0, most=10.0)
        for name in ("deadline_s", "step_s"):
            if getattr(self, name) is not None:
                check_number(self, name)
        check_number(self, "dropout", least=0.0, below=1.0)
        check_number(self, "availability", most=1.0)
        check_number(self, "uplink_bytes_per_s")
        check_number(self, "downlink_bytes_per_s")

    def check_task(self, task: Any) -> None:
        if self.step_s is None and task.model not in STEP_S:
            raise ValueError(
                f"{self!r} with model={task.model!r}: the time of a step was measured for "
                f"{sorted(STEP_S)} only. Give step_s, the seconds of one."
            )
        if self.availability < 1 and getattr(task.privacy, "sampling", None) == "fixed":
            raise ValueError(
                f"{self!r} with {task.privacy!r}: a sample of fixed size would be drawn from fewer "
                "clients than are accounted for. Take sampling='poisson', or availability=1."
            )

    def seconds_per_step(self, task: Any) -> float:
        """Time of one step at speed 1 [simulated s]."""
        if self.step_s is not None:
            return self.step_s
        return STEP_S[task.model] * task.batch_size / STEP_ROWS
