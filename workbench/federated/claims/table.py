"""The claims with their evidence: effect, interval, verdict, and what is stale or missing."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import pandas as pd

from workbench.federated.claims import results
from workbench.federated.claims.claim import Claim
from workbench.federated.claims.results import RESULTS, Recorded
from workbench.federated.claims.verdict import (
    LEVEL,
    UNDECIDED,
    Interval,
    holm,
    paired_interval,
    verdict,
)

#: Instead of a verdict: nothing recorded, too few seeds, or another definition since.
NOT_RUN, TOO_FEW, STALE = "not run", "too few seeds", "stale"


@dataclass(frozen=True)
class Evidence:
    """One claim with what was recorded for it.

    Parameters
    ----------
    claim : Claim
        What was asked.
    effects : dict
        Seed -> effect; above 0 speaks for the claim.
    interval : Interval or None
        Of the mean effect, from 2 seeds on.
    verdict : str
        One of `verdict`'s, or why there is none.
    recorded : Recorded or None
        The numbers, versions and seconds.
    """

    claim: Claim
    effects: dict[int, float]
    interval: Interval | None
    verdict: str
    recorded: Recorded | None

    @property
    def judged(self) -> bool:
        """Whether there is a verdict."""
        return self.verdict not in (NOT_RUN, TOO_FEW, STALE)


def evidence(claim: Claim, recorded: Recorded | None) -> Evidence:
    """Judge a claim by its record: by the seeds fixed beforehand, all of them."""
    if recorded is None:
        return Evidence(claim, {}, None, NOT_RUN, None)
    if recorded.is_stale(claim):
        return Evidence(claim, {}, None, STALE, recorded)
    seeds = {s: recorded.seeds[s] for s in claim.seeds if s in recorded.seeds}
    effects = {seed: claim.effect(done.values) for seed, done in seeds.items()}
    if len(effects) < 2:
        return Evidence(claim, effects, None, TOO_FEW, recorded)
    interval = paired_interval(list(effects.values()), claim.smallest)
    said = verdict(interval.low, interval.high, claim.smallest)
    complete = len(effects) == len(claim.seeds)
    return Evidence(claim, effects, interval, said if complete else TOO_FEW, recorded)


def survey(claims: Sequence[Claim], folder: str | os.PathLike = RESULTS) -> list[Evidence]:
    """Every claim with its evidence, from the recorded results."""
    return [evidence(claim, results.read(claim, folder)) for claim in claims]


def to_frame(found: Sequence[Evidence]) -> pd.DataFrame:
    """One row a claim: effect, interval, verdict, and the verdict after Holm's correction."""
    adjusted = holm([each.interval.p if each.judged else nan for each in found])
    rows = []
    for each, p in zip(found, adjusted, strict=True):
        ends = each.interval or Interval(nan, nan, nan, nan, len(each.effects))
        rows.append(
            {
                "claim": each.claim.id,
                "metric": each.claim.metric,
                "unit": each.claim.unit,
                "seeds": len(each.effects),
                "effect": ends.mean,
                "low": ends.low,
                "high": ends.high,
                "smallest": each.claim.smallest,
                "verdict": each.verdict,
                "p, Holm": p,
                "after Holm": _after(each, p),
            }
        )
    return pd.DataFrame(rows)


def _after(each: Evidence, adjusted: float) -> str:
    if not each.judged or each.verdict == UNDECIDED:
        return each.verdict
    return each.verdict if adjusted < 1 - LEVEL else UNDECIDED


def means(each: Evidence) -> dict[str, float]:
    """The mean over seeds of everything that was measured, by name."""
    if each.recorded is None:
        return {}
    frame = pd.DataFrame([done.values for done in each.recorded.seeds.values()])
    return frame.mean().to_dict()
