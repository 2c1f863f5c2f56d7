"""Run claims seed by seed; what is recorded and not stale is not run again."""

import os
import time
from collections.abc import Callable, Iterable, Sequence

from tqdm.auto import tqdm

from workbench.federated.claims import results
from workbench.federated.claims.claim import Claim
from workbench.federated.claims.results import RESULTS, Recorded, SeedResult


def missing(claim: Claim, recorded: Recorded | None, seeds: Sequence[int] | None) -> list[int]:
    """The seeds that are still to be run; all of them if what is recorded is stale."""
    wanted = claim.seeds if seeds is None else seeds
    if recorded is None or recorded.is_stale(claim):
        return list(wanted)
    return [seed for seed in wanted if seed not in recorded.seeds]


def run(
    claims: Iterable[Claim],
    seeds: Sequence[int] | None = None,
    folder: str | os.PathLike = RESULTS,
    progress: bool = True,
    report: Callable[[str], object] = tqdm.write,
) -> list[Recorded]:
    """Measure claims and record each seed as soon as it is done.

    An interrupted call loses at most the seed that it was at. Results whose claim has changed are
    dropped and measured anew.

    Parameters
    ----------
    claims : iterable of Claim
        What to run.
    seeds : sequence of int or None
        Which seeds; ``None`` takes each claim's own.
    folder : path
        Where the records are.
    progress : bool
        Show a bar that counts seeds.
    report : callable
        Told in one line what each seed gave.
    """
    claims = list(claims)
    todo = {c.id: missing(c, results.read(c, folder), seeds) for c in claims}
    with tqdm(total=sum(map(len, todo.values())), disable=not progress, unit="seed") as bar:
        for claim in claims:
            for seed in todo[claim.id]:
                bar.set_description(f"{claim.id}, seed {seed}")
                done = measure(claim, seed)
                recorded = results.read(claim, folder)
                if recorded is None or recorded.is_stale(claim):
                    recorded = results.new(claim)
                results.write(recorded.with_seed(seed, done), folder)
                report(_line(claim, seed, done))
                bar.update()
    return [found for c in claims if (found := results.read(c, folder)) is not None]


def measure(claim: Claim, seed: int) -> SeedResult:
    """Run one seed of a claim."""
    started = time.perf_counter()
    values = claim.measure(seed)
    seconds = round(time.perf_counter() - started, 1)
    return SeedResult(values, seconds, results.library_fingerprint(), dict(results.versions()))


def _line(claim: Claim, seed: int, done: SeedResult) -> str:
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in done.values.items())
    effect = claim.effect(done.values)
    return f"{claim.id}, seed {seed}: effect {effect:+.4g} {claim.unit} ({numbers})"
