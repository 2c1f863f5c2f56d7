"""What the suite found: a line a check, the failures, and the first difference in a sentence."""

from dataclasses import dataclass
from textwrap import fill

#: What each check holds, in the order in which a failure of it explains those after it.
CHECKS = {
    "refusals": "`check` refuses with a ValueError, before anything is launched",
    "runs": "what `check` accepts runs: faked, on one rank and on real ranks",
    "one sample": "each rank's weights are its part of the ones drawn from the one seed",
    "output": "each rank's part of the stream, around every branch, is one device's",
    "gradients": "each rank's gradients of the input and of all weights are one device's",
    "padding": "nothing depends on what fills up uneven parts",
    "logs": "the ranks' logs are equal, record by record",
    "faked": "the faked log is the real one, record by record",
    "sent": "what went through the process group is what the log says",
    "closed form": "the closed form of each phase is the log's sum",
    "repeats": "a second run gives the same, and leaves no tensor behind",
}
_WIDTH = 88  # signs a line: what a notebook's page shows without breaking words
_HINTS = {
    "refusals": "raise ValueError in `check`, with the numbers and the rule, for what can't run",
    "runs": "if the strategy can't run this, let `check` refuse it; else look at that line",
    "one sample": "`shard_weights` may only cut: what is drawn per rank differs per rank",
    "output": "the layer's values were right before; look at what runs there: `arrange`, `enter`, "
    "`attend`, `leave`",
    "gradients": "the output is right, so a backward is wrong: a custom autograd function, or the "
    "value ('whole', 'shared', 'partial') of an unsplit layout",
    "padding": "only `layout.valid(rank, p)` entries of the cut dim are data",
    "logs": "all ranks must call the same collectives, with buffers of one size",
    "faked": "the strategy takes another path where there are values, or a process group",
    "sent": "move tensors by `comm.relayout` only: it sends once and records once",
    "closed form": "count elements, padding included, in `forward_elements` and "
    "`backward_elements`",
    "repeats": "keep nothing on the class or in a module",
}


@dataclass(frozen=True)
class Difference:
    """One way in which a strategy is not what it should be.

    Attributes
    ----------
    check : str
        Which of the checks found it.
    case : str
        The model, ranks, dtype and the dim cut first.
    text : str
        What is wrong, in a sentence.
    layer, stage, rank : int or None
        Where: the layer, the place of its stage, and the rank, as far as that can be told.
    tensor : str or None
        ``"input of ..."``, ``"output of ..."`` a branch, ``"gradient of ..."`` a weight, or
        ``"record ..."`` of the log.
    index : tuple of int or None
        The first entry that differs, in the logical tensor.
    found, expected, error : float or None
        There; and the largest error of the rank's part, over one device's largest value.
    hint : str
        What to look at.
    """

    check: str
    case: str
    text: str
    layer: int | None = None
    stage: int | None = None
    rank: int | None = None
    tensor: str | None = None
    index: tuple[int, ...] | None = None
    found: float | None = None
    expected: float | None = None
    error: float | None = None
    hint: str = ""

    def __str__(self) -> str:
        places = (("layer", self.layer), ("stage", self.stage), ("rank", self.rank))
        where = ", ".join(f"{name} {value}" for name, value in places if value is not None)
        what = "" if self.tensor is None else self.tensor
        if self.index is not None:
            what += f" at [{', '.join(map(str, self.index))}]"
        if self.found is not None:
            what += f": {self.found:.6g}, where one device has {self.expected:.6g}"
        if self.error is not None:
            what += f" (largest error {self.error:.1e})"
        rows = [self.case, where, what, self.text, f"Hint: {self.hint or _HINTS[self.check]}."]
        return "\n".join(fill(row, _WIDTH) for row in rows if row)


@dataclass(frozen=True)
class Report:
    """What `verify` found.

    Attributes
    ----------
    strategy : str
        Name of what was tried.
    counts : dict of str to int
        How often each check was made.
    failures : tuple of Difference
        All that was wrong, the one that explains most first.
    refused : tuple of str
        Cases that the strategy's own ``check`` refused, with its reason: they were not run.
    seconds : float
        Of the whole suite [s].
    """

    strategy: str
    counts: dict[str, int]
    failures: tuple[Difference, ...]
    refused: tuple[str, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Tell whether everything was tried and nothing was wrong."""
        return not self.failures

    @property
    def first(self) -> Difference | None:
        """The difference to look at first."""
        return self.failures[0] if self.failures else None

    def assert_passed(self) -> None:
        """Raise AssertionError with the report's text unless all passed; for tests."""
        if not self.passed:
            raise AssertionError(str(self))

    def rows(self) -> list[tuple[str, str, str, str]]:
        """A mark, a name, a count and what is held, for each check."""
        rows = []
        for name, rule in CHECKS.items():
            made = self.counts.get(name, 0)
            wrong = len({failure.case for failure in self.failures if failure.check == name})
            mark = "✘" if wrong else "✔" if made else "–"
            count = f"{wrong} of {max(made, wrong)} wrong" if wrong else f"{made}" if made else ""
            rows.append((mark, name, count or "not reached", rule))
        return rows

    def _title(self) -> str:
        outcome = "passed" if self.passed else "FAILED"
        count = len(self.refused)
        cases = "case" if count == 1 else "cases"
        tail = f", {count} {cases} refused beforehand" if count else ""
        return f"{self.strategy}: {outcome} in {self.seconds:.1f} s{tail}"

    def __str__(self) -> str:
        rows = [f"{mark} {name:<12}{count:>17}  {rule}" for mark, name, count, rule in self.rows()]
        rows = [self._title(), *rows]
        return "\n".join(rows if self.passed else [*rows, "", "First difference:", str(self.first)])

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        rows = [" | ".join(("", *row, "")).strip() for row in self.rows()]
        table = "\n".join(
            [f"**{self._title()}**", "", "| | check | cases | rule |", "|-|-|--:|-|", *rows]
        )
        if self.passed:
            return table
        quoted = "\n".join(f"    {row}" for row in str(self.first).splitlines())
        return f"{table}\n\nFirst difference:\n\n{quoted}"
