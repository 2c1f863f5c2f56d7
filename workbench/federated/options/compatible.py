"""Which options go together, and why the others don't."""

from dataclasses import dataclass

from workbench.federated.methods import (
    Ditto,
    FedAdam,
    FedAvg,
    FedProx,
    FedYogi,
    FfaLora,
    LocalHead,
    PFedMe,
)
from workbench.federated.option import Option
from workbench.federated.options import FAMILIES
from workbench.federated.options.privacy import CentralDP
from workbench.federated.options.secure_aggregation import SecAggPlus
from workbench.federated.options.system import System

#: Methods that join updates by a mean, which a defence can take the place of.
MEANS = (FedAvg, FedProx, FedAdam, FedYogi, Ditto, PFedMe, LocalHead, FfaLora)


@dataclass(frozen=True)
class Rule:
    """An option goes only with the ``allowed`` ones of another family, or with none of it."""

    option: type[Option]
    family: str
    allowed: tuple[type[Option], ...]
    why: str


_CLIPPED = "its noise is accounted for a mean of clipped updates."
_SEEN = "the server sees the sum only, so it can't compare, clip or unpack single updates."
COMPATIBLE: tuple[Rule, ...] = (
    Rule(CentralDP, "method", (FedAvg, FedProx, FfaLora), _CLIPPED),
    Rule(CentralDP, "defence", (), _CLIPPED),
    Rule(CentralDP, "secure_aggregation", (), _SEEN),
    Rule(SecAggPlus, "method", (FedAvg, FfaLora), _SEEN),
    Rule(SecAggPlus, "compression", (), _SEEN),
    Rule(SecAggPlus, "defence", (), _SEEN),
    Rule(System, "secure_aggregation", (), "its clock times one exchange a round, not several."),
    *(
        Rule(defence, "method", MEANS, "it takes the place of the mean, which they don't use.")
        for defence in FAMILIES["defence"]
    ),
)


def check_compatible(options: dict[str, Option | None]) -> None:
    """Refuse options, family -> option, that don't go together."""
    for rule in COMPATIBLE:
        one = options.get(rule.option.family)
        other = options.get(rule.family)
        if type(one) is rule.option and other is not None and type(other) not in rule.allowed:
            ways = [kind.__name__ for kind in rule.allowed]
            raise ValueError(
                f"{one!r} does not go with {other!r}: {rule.why} "
                f"Take {rule.family}={' or '.join(ways) or None}, or leave {rule.option.family} "
                "out."
            )
    _check_feedback(options)


def _check_feedback(options: dict[str, Option | None]) -> None:
    compression = options.get("compression")
    if isinstance(options.get("privacy"), CentralDP) and getattr(compression, "stateful", False):
        raise ValueError(
            f"{options['privacy']!r} does not go with {compression!r}: what a client keeps from "
            "round to round is outside the accounting. Take TopK(error_feedback=False)."
        )
