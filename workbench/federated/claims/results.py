"""What was measured, claim by claim: one JSON file each, written after every seed."""

import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from workbench.federated.claims.claim import Claim
from workbench.federated.record import write_whole

#: Where the recorded results are.
RESULTS = pathlib.Path(__file__).parent / "results"
#: Packages that the numbers can depend on.
PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "flwr",
    "flwr-datasets",
    "peft",
    "transformers",
    "scikit-learn",
)


@dataclass(frozen=True)
class SeedResult:
    """One seed: its numbers, how long they took, and by which code and versions.

    Parameters
    ----------
    values : dict
        A number for each arm and each thing measured beside it.
    seconds : float
        Wall time on the machine of the record, busy or not [s]; runs that claims share count once.
    code : str
        Fingerprint of the whole library, `library_fingerprint`.
    versions : dict
        Of Python and the packages.
    """

    values: dict[str, float]
    seconds: float
    code: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Recorded:
    """The recorded results of one claim.

    ``fingerprint`` is that of the claim when it was measured: another one now means that the
    results are stale.
    """

    claim: str
    fingerprint: str
    definition: dict[str, Any]
    seeds: dict[int, SeedResult] = field(default_factory=dict)

    def is_stale(self, claim: Claim) -> bool:
        """Whether the claim's definition or experiment is no longer the recorded one."""
        return self.fingerprint != claim.fingerprint()

    def with_seed(self, seed: int, result: SeedResult) -> "Recorded":
        """The same with one seed more."""
        seeds = dict(sorted({**self.seeds, seed: result}.items()))
        return Recorded(self.claim, self.fingerprint, self.definition, seeds)


def new(claim: Claim) -> Recorded:
    """A record without seeds."""
    return Recorded(claim.id, claim.fingerprint(), claim.definition())


def read(claim: Claim, folder: str | os.PathLike = RESULTS) -> Recorded | None:
    """The recorded results of a claim; ``None`` if there are none."""
    path = pathlib.Path(folder) / f"{claim.id}.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
        seeds = {int(seed): SeedResult(**each) for seed, each in found.pop("seeds").items()}
        return Recorded(**found, seeds=seeds)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(
            f"{path} is no record of a claim ({type(error).__name__}: {error}). Put it back, or "
            "delete it and measure again."
        ) from None


def write(recorded: Recorded, folder: str | os.PathLike = RESULTS) -> None:
    """Write a record whole: it gets its name when it is complete."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(recorded), indent=1) + "\n"
    write_whole(folder / f"{recorded.claim}.json", text)


def versions() -> Mapping[str, str]:
    """Versions of Python and of the packages that numbers can depend on."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found}


def library_fingerprint() -> str:
    """SHA-256 of the code of `workbench.federated`, without the claims themselves."""
    root, digest = pathlib.Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        if "claims" not in path.relative_to(root).parts:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
