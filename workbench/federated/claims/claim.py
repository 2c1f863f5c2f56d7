"""What a claim is: a sentence of the survey's with an experiment that could speak against it."""

import ast
import hashlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite

#: Where a claim is named, by the tags in `Claim.named`.
SOURCES: dict[str, str] = {
    "S2": "Zhuang, Chen, Lyu, arXiv 2306.15546, abstract of version 2",
    "S3": "Zhuang, Chen, Lyu, arXiv 2306.15546, abstract of version 3",
    "ST": "arXiv 2306.15546 by a third party's summary",
    "T10": "sister survey, arXiv 2502.12176 (ten problems)",
    "P": "sister survey, arXiv 2402.01857",
    "2409.05976": "FLoRA, arXiv 2409.05976",
}
#: Where experiments and what they share stand.
PACKAGE = "workbench.federated.claims."
#: Seeds of a claim on MiniLM, and of one that needs SmolLM2.
ENCODER_SEEDS, WRITER_SEEDS = (0, 1, 2, 3, 4), (0, 1, 2)
#: One number of each arm, and of what was measured beside.
Measured = Mapping[str, float]


@dataclass(frozen=True)
class Claim:
    """One claim, and everything about its judgement that is fixed before it is run.

    The effect of a seed is ``arms[0] - arms[1]``, or the reverse where lower is better: above 0 is
    what the claim says.

    Parameters
    ----------
    id : str
        Its name in commands and files.
    sentence : str
        The claim in our own words.
    named : tuple of str
        Where it is named; keys of `SOURCES`.
    metric, unit : str
        What is measured of each arm.
    arms : tuple of two str
        What the claim prefers, and what it is set against.
    smallest : float
        The smallest effect that would interest anybody, in ``unit``.
    experiment : callable
        Seed -> a number for each arm, and for each name in ``beside``.
    limits : str
        What the experiment leaves out.
    beside : tuple of str
        What else is measured, such as what the effect costs; it is not judged.
    higher_is_better : bool
        Whether a larger number is better.
    seeds : tuple of int
        The seeds that it is judged by.
    """

    id: str
    sentence: str
    named: tuple[str, ...]
    metric: str
    unit: str
    arms: tuple[str, str]
    smallest: float
    experiment: Callable[[int], Measured]
    limits: str
    beside: tuple[str, ...] = ()
    higher_is_better: bool = False
    seeds: tuple[int, ...] = ENCODER_SEEDS

    def __post_init__(self):
        if unknown := set(self.named) - set(SOURCES):
            raise ValueError(f"claim {self.id!r} is named in {unknown}; known are {list(SOURCES)}.")
        if not self.smallest > 0 or len(set(self.seeds)) < 2 or len(set(self.arms)) != 2:
            raise ValueError(
                f"claim {self.id!r}: smallest={self.smallest}, seeds={self.seeds}, "
                f"arms={self.arms}; the smallest effect is above 0, and there are two arms and "
                "at least 2 seeds."
            )

    def measure(self, seed: int) -> dict[str, float]:
        """Run the experiment; its numbers must be the ones that the claim announces.

        Raises
        ------
        RuntimeError
            If a number is missing, unannounced or not finite.
        """
        values = {name: float(value) for name, value in self.experiment(seed).items()}
        odd = set(values) ^ {*self.arms, *self.beside}
        odd |= {name for name, value in values.items() if not isfinite(value)}
        if odd:
            raise RuntimeError(
                f"claim {self.id!r}, seed {seed}: {sorted(odd)} is not finite, missing or "
                f"unannounced; it measures {[*self.arms, *self.beside]}."
            )
        return values

    def effect(self, values: Measured) -> float:
        """How far one seed speaks for the claim."""
        better, other = (values[arm] for arm in self.arms)
        return better - other if self.higher_is_better else other - better

    def definition(self) -> dict[str, object]:
        """What must not change once results are there; but for the seeds, which may grow."""
        return {
            "metric": self.metric,
            "unit": self.unit,
            "arms": list(self.arms),
            "smallest": self.smallest,
            "higher_is_better": self.higher_is_better,
            "beside": list(self.beside),
        }

    def fingerprint(self) -> str:
        """SHA-256 of the definition, the experiment's file and what that imports from the claims.

        Comments, docstrings and layout don't count. What the library computes does not either:
        results say beside it which state of the code they are of.
        """
        text = repr(sorted(self.definition().items()))
        for module in sorted(modules_behind(self.experiment.__module__)):
            text += code_of(inspect.getsource(sys.modules[module]))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def modules_behind(module: str) -> set[str]:
    """A module, and those of the claims that it imports, and so on; not the frame around them."""
    if not module.startswith(PACKAGE):
        return {module}
    found, todo = set(), [module]
    while todo:
        name = todo.pop()
        found.add(name)
        tree = ast.parse(inspect.getsource(sys.modules[name]))
        imported = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
        todo += [m for m in imported - found if m.startswith(PACKAGE) and m != __name__]
    return found


def code_of(source: str) -> str:
    """Code without what changes nothing: comments, docstrings, layout.

    Examples
    --------
    >>> code_of("x = (1)  # one") == code_of("x=1")
    True
    """
    tree = ast.parse(source)
    documented = ast.Module | ast.FunctionDef | ast.ClassDef
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node):
            node.body = node.body[1:]
    return ast.unparse(tree)
