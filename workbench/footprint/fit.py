"""Does a step fit into a device, what fills it, and what would make it fit."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from numbers import Real
from typing import Any

from workbench.cluster import Device
from workbench.footprint.form import Memory, closed_form_memory
from workbench.layout import shard_size
from workbench.mesh import DATA
from workbench.strategies import STRATEGIES, Strategy, by_name
from workbench.transformer import TransformerSpec

#: From the least to the most that is computed again.
MODES = ("none", "selective", "block")
#: How many times as many ranks are tried, at most.
MOST_RANKS = 64


@dataclass(frozen=True)
class Fit:
    """Whether a rank's peak fits into its device's memory.

    Attributes
    ----------
    fits : bool
        Is the peak at most the budget?
    needed_bytes, budget_bytes : int
        The rank's peak, and the device's memory.
    largest : str
        The kind that takes most; see `footprint.KINDS`.
    way_out : dict or None
        Where it doesn't fit: the smallest change that would, as arguments to change; ``None`` where
        it fits, or where nothing that was tried does.
    memory : Memory
        What is held at the peak, by kind, layer and tensor.
    """

    fits: bool
    needed_bytes: int
    budget_bytes: int
    largest: str
    way_out: Mapping[str, Any] | None
    memory: Memory = field(repr=False, compare=False)

    @property
    def spare_bytes(self) -> int:
        """What is left of the budget; negative is what is missing."""
        return self.budget_bytes - self.needed_bytes


def fits(
    spec: TransformerSpec,
    strategy: str | type[Strategy],
    device: Device | float,
    *,
    p: int,
    **how,
) -> Fit:
    """Tell whether a step fits into a device, and if not, the smallest change that would.

    Changes are tried in this order, and the first that fits is taken: cutting the batch into more
    parts (the same work); computing MLPs' hidden units again; computing whole blocks again, also in
    parts; FSDP, alone and with each of these; another strategy; more ranks, twice as many at a
    time; and these two with each of those. Fragmentation, scratch memory inside kernels and what a
    device keeps for itself come on top of a peak; a careful budget is a little below a data
    sheet's.

    Parameters
    ----------
    spec, strategy, p, **how
        As for `closed_form_memory`.
    device : Device or number
        With its ``memory_bytes``; or the bytes themselves.

    Raises
    ------
    ValueError
        As `closed_form_memory`; or if the budget is no positive number of bytes.

    Examples
    --------
    >>> from workbench.cluster import DEVICES
    >>> from workbench.transformer import PRESETS
    >>> found = fits(PRESETS["stdit-xl-2"], "dsp", DEVICES["h100"], p=4, dtype="bfloat16",
    ...              optimizer="adamw")
    >>> found.fits, found.largest, found.spare_bytes > 0
    (True, 'activations', True)
    >>> fits(PRESETS["stdit-xl-2"], "dsp", 20 * 10**9, p=4, dtype="bfloat16").way_out
    {'checkpoint': 'block'}
    """
    budget = getattr(device, "memory_bytes", device)
    if isinstance(budget, bool) or not isinstance(budget, Real) or not 1 <= budget < inf:
        raise ValueError(f"a budget is a Device or a positive number of bytes; got {device!r}")
    memory = closed_form_memory(spec, strategy, p=p, **how)
    largest = max(memory.kinds, key=memory.kinds.get)
    enough, change = memory.peak_bytes <= budget, None
    if not enough:
        given = {"strategy": strategy, "p": p, **how}
        working = (c for c in _changes(spec, given) if _fits(spec, given | c, budget))
        change = next(working, None)
    return Fit(enough, memory.peak_bytes, int(budget), largest, change, memory)


def _fits(spec: TransformerSpec, given: Mapping[str, Any], budget: int) -> bool:
    try:
        return closed_form_memory(spec, **given).peak_bytes <= budget
    except ValueError:  # it can't run, or is not covered
        return False


def _changes(spec: TransformerSpec, given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    mesh, p = given.get("mesh"), given["p"]
    samples = shard_size(spec.batch, (mesh or {}).get(DATA, 1))
    now = given.get("accumulate", 1)
    parts = [{"accumulate": n} for n in range(now + 1, samples + 1) if samples % n == 0]
    modes = MODES[MODES.index(given.get("checkpoint", "none")) + 1 :]
    again = [{"checkpoint": mode} for mode in modes]
    inside = [*parts, *again, *(mode | part for mode in again[-1:] for part in parts)]
    if given.get("fsdp") is not True:
        inside += [{"fsdp": True}, *(change | {"fsdp": True} for change in inside)]
    yield from inside
    if mesh is None:
        own = by_name(given["strategy"]).options
        bare = {name for name in own if name in given}
        names = [name for name, cls in STRATEGIES.items() if cls is not Strategy]
        others = [{"strategy": name} for name in names if name != given["strategy"] and not bare]
        others += [{"p": p * 2**i} for i in range(1, MOST_RANKS.bit_length())]
        yield from others
        yield from (other | change for other in others for change in inside)
