"""The option families of a task; which options go together stands in `compatible`."""

from typing import Any

from workbench.federated.methods import METHODS
from workbench.federated.option import Option
from workbench.federated.options.attack import Backdoor, LabelFlip, SignFlip
from workbench.federated.options.compression import Bf16, Int8, TopK
from workbench.federated.options.defence import Bulyan, Krum, Median, MultiKrum, TrimmedMean
from workbench.federated.options.partition import Dirichlet, Iid, Natural, QuantitySkew
from workbench.federated.options.privacy import CentralDP, LocalDP
from workbench.federated.options.secure_aggregation import SecAggPlus
from workbench.federated.options.system import System

#: Each family of options, by the name of its field in a task.
FAMILIES: dict[str, tuple[type[Option], ...]] = {
    "method": METHODS,
    "partition": (Natural, Iid, Dirichlet, QuantitySkew),
    "privacy": (CentralDP, LocalDP),
    "secure_aggregation": (SecAggPlus,),
    "compression": (Bf16, Int8, TopK),
    "attack": (LabelFlip, SignFlip, Backdoor),
    "defence": (Median, TrimmedMean, Krum, MultiKrum, Bulyan),
    "system": (System,),
}


def as_option(family: str, value: Any) -> Option | None:
    """The option that a field of a task means: itself, by its name, or as read from JSON.

    Examples
    --------
    >>> as_option("compression", "top-k")
    TopK(fraction=0.1, error_feedback=True)
    """
    if value is None and family != "method":
        return None
    if isinstance(value, FAMILIES[family]):
        return value
    numbers = dict(value) if isinstance(value, dict) else {"name": value}
    name = _plain(numbers.pop("name", None))
    kinds = {kind.label(): kind for kind in FAMILIES[family]}
    if name not in kinds:
        raise ValueError(
            f"{family}={value!r}; it is one of {sorted(kinds)}"
            f"{'' if family == 'method' else ', or None'}."
        )
    numbers = {key: tuple(v) if isinstance(v, list) else v for key, v in numbers.items()}
    try:
        return kinds[name](**{k: _as_tuple(v) for k, v in numbers.items()})
    except TypeError as error:
        raise ValueError(f"{family}={value!r}: {error}") from None


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _plain(name: Any) -> str:
    words = str(name).lower().replace("+", "plus")
    return words.replace("-", "").replace("_", "").replace(" ", "")
