"""`verify`: the conformance suite that every strategy passes, ours and yours."""

import functools
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from workbench.comm import Comm
from workbench.conformance import differences
from workbench.conformance.attempt import Attempt, Raised, attempt, faked, on_ranks
from workbench.conformance.cases import SPECS, Case, Refusal, cases_of
from workbench.conformance.report import CHECKS, Difference, Report
from workbench.dims import check_count
from workbench.failure import RankError
from workbench.launch import local_device
from workbench.strategies import Strategy, by_name

#: Checks of a case that has run on real ranks, by the name that they have in a report.
_REAL = {
    "runs": differences.wrong_shapes,
    "one sample": differences.one_sample,
    "output": differences.output,
    "gradients": differences.gradients,
    "padding": differences.padding,
    "logs": differences.logs,
    "sent": differences.sent,
    "closed form": differences.closed_form,
}


def verify(
    strategy: str | type[Strategy],
    *,
    ranks: Sequence[int] = (2, 3, 4),
    models: Sequence[str] | None = None,
    timeout_s: float = 20.0,
    **options,
) -> Report:
    """Run the conformance suite, which tells if a strategy is one device's model, to the byte.

    Small models, awkward in one way each, run a training step faked, on one rank and on real
    processes. The residual stream around every branch, all gradients and all logs are compared
    with one device in float64, and with each other.

    Parameters
    ----------
    strategy : str or class
        A key of `STRATEGIES`, or a subclass of `Strategy`.
    ranks : sequence of int
        Numbers of real ranks; one launch each. A strategy of several axes gets meshes of them.
    models : sequence of str, optional
        Keys of `SPECS`, to look at one failure again without the rest. ``None`` is all of them.
    timeout_s : float
        Longest time that one collective may take [s]; a whole launch, three times that.
    **options
        Values of the strategy's own options.

    Returns
    -------
    Report
        ``passed``, ``first`` (where it first differs: ``layer``, ``stage``, ``rank``, ``tensor``,
        ``index``), ``failures``, ``refused``. Printing it gives a line a check. In a test, call
        ``verify(Mine).assert_passed()``.

    Raises
    ------
    ValueError
        If it is no strategy, has no such option, no number of ranks is above 1, or a model is
        not known. Whatever the strategy itself does wrong is in the report instead.

    Notes
    -----
    A case that the strategy's ``check`` refuses is not run, and listed.
    """
    for p in ranks:
        check_count("a number of ranks", p)
    if not any(p > 1 for p in ranks):
        raise ValueError(f"verify needs a number of ranks above 1, such as (2, 3, 4); got {ranks}")
    models = list(SPECS) if models is None else models
    unknown = [name for name in models if name not in SPECS]
    if unknown or not models:
        raise ValueError(f"verify needs models out of {list(SPECS)}; got {list(models)}")
    started = time.perf_counter()
    cls = by_name(strategy).with_options(**options)
    suite = _Suite()
    counts = sorted({1, *ranks})
    cases, refusals = cases_of(cls, counts, models)
    suite.refused(refusals, len(cases))
    able = [case for case in cases if suite.runs_faked(case)]
    for p in counts:
        here = [case for case in able if case.p == p]
        if here and not suite.runs(here, p, timeout_s):
            break
    refused = tuple(f"{r.case}: {r.error}" for r in refusals)
    seconds = time.perf_counter() - started
    return Report(cls.name, dict(suite.counts), tuple(suite.sorted_failures()), refused, seconds)


@functools.cache
def one_device(name: str) -> Attempt:
    """A case's model on one device, in float64, by the reference: the same for every strategy."""
    alone = attempt(Comm(1), Case(name, Strategy, 1), local_device())
    assert isinstance(alone, Attempt), alone
    return alone


def _model(failure: Difference) -> int:
    """The place of a failure's model among `SPECS`, the plainest first; -1 for none."""
    found = (i for i, name in enumerate(SPECS) if failure.case.startswith(f"{name} ("))
    return next(found, -1)


class _Suite:
    """Gathers what is wrong; a check adds at most its first difference of a case."""

    def __init__(self):
        self.counts: Counter = Counter()
        self.failures: list[Difference] = []
        self.even: set[str] = set()
        self.faked: dict[Case, Attempt] = {}

    def hold(self, check: str, found: Iterable[Difference]) -> bool:
        """Count a check of a case, and keep its first difference."""
        self.counts[check] += 1
        first = next(iter(found), None)
        if first is not None:
            self.failures.append(first)
        return first is None

    def sorted_failures(self) -> list[Difference]:
        """The most telling first, and what the pattern of the cases tells of it."""
        order = list(CHECKS)
        # What raises on a model may be what a plainer one shows in place.
        located = [_model(f) for f in self.failures if f.tensor is not None]

        def place(failure: Difference) -> int:
            hidden = failure.tensor is None and any(m < _model(failure) for m in located)
            return len(order) if hidden and failure.check == "runs" else order.index(failure.check)

        failures = sorted(self.failures, key=place)
        if failures and self.even:
            alike = {failure.case for failure in failures if failure.check == failures[0].check}
            if failures[0].check in ("output", "gradients") and self.even.isdisjoint(alike):
                text = "It is wrong only where there is padding: p does not divide every dim."
                failures[0] = replace(failures[0], text=text)
        return failures

    def refused(self, refusals: list[Refusal], accepted: int) -> None:
        for refusal in refusals:
            error, alone = refusal.error, refusal.p == 1
            wrong = not isinstance(error, ValueError) or not str(error) or alone
            text = f"`check` raised {type(error).__name__}: {error}"
            text += "; every strategy runs on one rank" if alone else ""
            at = Difference("refusals", refusal.case, text)
            self.hold("refusals", [at] if wrong else [])
        self.counts["refusals"] += accepted
        if not accepted:
            self.hold("refusals", [Difference("refusals", "every case", "`check` refuses all.")])

    def runs_faked(self, case: Case) -> bool:
        found = faked(case)
        if isinstance(found, Raised):
            return self.hold("runs", self.raised(found, case, [found], "faked"))
        self.faked[case] = found
        return self.hold("runs", differences.wrong_shapes(case, [found], one_device(case.name)))

    def runs(self, cases: list[Case], p: int, timeout_s: float) -> bool:
        """Run the cases for real and compare; False if there is no point in going on."""
        if p == 1:
            for case in cases:
                self.compare(case, [attempt(Comm(1), case, local_device())])
            return True
        try:
            shares = on_ranks(cases, p, timeout_s)
        except (RankError, TimeoutError) as error:
            at = Difference("runs", f"p={p}", str(error), rank=getattr(error, "rank", None))
            return self.hold("runs", [at])
        for case, *ranks in zip(cases, *(share.attempts for share in shares), strict=False):
            if not self.compare(case, ranks):
                return False
        again = [share.again for share in shares]
        ranks = [share.attempts[0] for share in shares]
        if self.compare(cases[0], again):
            self.hold("repeats", differences.repeats(cases[0], again, ranks))
            kept = next((r for r, share in enumerate(shares) if share.kept > 0), None)
            text = "" if kept is None else f"{shares[kept].kept} tensors outlive their step."
            at = Difference("repeats", str(cases[0]), text, rank=kept)
            self.hold("repeats", [at] if text else [])
        return True

    def compare(self, case: Case, ranks: list[Attempt | Raised]) -> bool:
        """Make all checks of one case; False if it raised."""
        raised = [rank for rank in ranks if isinstance(rank, Raised)]
        if raised:
            first = min(raised, key=lambda rank: rank.at_s)
            return self.hold("runs", self.raised(first, case, ranks, f"on rank {first.rank}"))
        one = one_device(case.name)
        self.even |= set() if case.uneven or case.p == 1 else {str(case)}
        for name, check in _REAL.items():
            if not self.hold(name, check(case, ranks, one)) and name == "runs":
                return True
        self.hold("faked", differences.against_faked(case, self.faked[case], ranks[0]))
        return True

    def raised(self, found: Raised, case: Case, ranks: list, where: str) -> Iterator[Difference]:
        """A wrong shape that was there before, or what was raised."""
        yield from differences.wrong_shapes(case, ranks, one_device(case.name))
        text = f"It raised {where}: {found.text}"
        yield Difference("runs", str(case), text, found.layer, found.stage, found.rank)
