"""Claims: intervals and verdicts, runs that resume, stale records, and the recorded ones."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from workbench.federated import claims
from workbench.federated.claims import Claim, __main__, holm, paired_interval, results, verdict
from workbench.federated.claims.catalogue.contribution import shapley
from workbench.federated.claims.claim import code_of, modules_behind
from workbench.federated.claims.running import run
from workbench.federated.claims.table import NOT_RUN, STALE, TOO_FEW, evidence, survey, to_frame
from workbench.federated.claims.verdict import CONTRADICTED, SUPPORTED, UNDECIDED


def experiment(seed):
    """A loss of 1 against one that is higher by 0.3 and a little."""
    return {"new": 1.0, "old": 1.3 + 0.01 * seed, "cost": 5.0}


@pytest.fixture
def claim():
    return Claim(
        "falls", "It falls.", ("S2",), "loss", "nat", ("new", "old"), 0.1, experiment, "All of it.",
        beside=("cost",), seeds=(0, 1, 2),
    )  # fmt: skip


def test_the_interval_is_that_of_the_paired_t_test():
    draw = np.random.default_rng(0)
    for count in (2, 3, 5, 9):
        effects = draw.normal(0.3, 0.2, count).tolist()
        found, test = paired_interval(effects), stats.ttest_1samp(effects, 0.0)
        assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval(0.95)))
        assert found.p == pytest.approx(test.pvalue)


def test_p_is_below_5_per_cent_exactly_where_the_interval_is_beyond_the_smallest_effect():
    draw, seen = np.random.default_rng(1), set()
    for _ in range(300):
        found = paired_interval(draw.normal(draw.uniform(-0.6, 0.6), 0.1, 4).tolist(), 0.1)
        said = verdict(found.low, found.high, 0.1)
        assert (found.p < 0.05) == (said != UNDECIDED)
        seen.add(said)
    assert seen == {SUPPORTED, CONTRADICTED, UNDECIDED}


def test_counted_bytes_have_no_spread_and_one_seed_has_no_interval():
    found = paired_interval([2.0, 2.0, 2.0], smallest=1.0)
    assert (found.low, found.high, found.p) == (2.0, 2.0, 0.0)
    assert paired_interval([0.5, 0.5], smallest=1.0).p == 1.0
    for wrong in ([0.1], [0.1, np.nan]):
        with pytest.raises(ValueError, match="at least 2 finite"):
            paired_interval(wrong)


def test_holm_is_stepwise_and_leaves_out_what_was_not_judged():
    assert holm([0.01, float("nan"), 0.02, 0.9]) == pytest.approx(
        [0.03, np.nan, 0.04, 0.9], nan_ok=True
    )
    assert holm([0.04, 0.03, 0.02]) == pytest.approx([0.06, 0.06, 0.06])
    assert holm([]) == []


def test_shapley_shares_out_what_all_have_together():
    draw = np.random.default_rng(2)
    groups = [frozenset(i for i in range(4) if n >> i & 1) for n in range(16)]
    worth = {group: float(draw.normal()) for group in groups}
    values = shapley(worth, range(4))
    assert sum(values) == pytest.approx(worth[frozenset(range(4))] - worth[frozenset()])
    alike = {group: float(len(group) ** 2) for group in groups}
    assert shapley(alike, range(4)) == pytest.approx([4.0] * 4)


def test_a_run_measures_each_seed_once_and_goes_on(claim, tmp_path):
    calls = []

    def counted(seed):
        calls.append(seed)
        return experiment(seed)

    counting = dataclasses.replace(claim, experiment=counted)
    for seeds in ((0, 1), None, None):
        run([counting], seeds, tmp_path, progress=False, report=str)
    assert calls == [0, 1, 2]
    (found,) = survey([counting], tmp_path)
    assert (found.verdict, found.interval.mean) == (SUPPORTED, pytest.approx(0.31))
    assert found.recorded.seeds[1].versions["torch"]
    assert not list(tmp_path.glob("*.partial*"))


def test_a_changed_claim_makes_its_record_stale(claim, tmp_path):
    run([claim], None, tmp_path, progress=False, report=str)
    for name, value in {"smallest": 0.2, "metric": "another", "higher_is_better": True}.items():
        changed = dataclasses.replace(claim, **{name: value})
        assert evidence(changed, results.read(changed, tmp_path)).verdict == STALE
    run([changed], (0,), tmp_path, progress=False, report=str)
    assert list(results.read(changed, tmp_path).seeds) == [0]  # the old ones were of something else
    reworded = dataclasses.replace(claim, sentence="It does fall.")
    assert reworded.fingerprint() == claim.fingerprint()


def test_a_change_of_what_experiments_share_makes_them_stale():
    assert code_of("def f():\n    'Says.'\n    return 1  # one") == code_of("def f(): return 1")
    assert code_of("x = 1") != code_of("x = 2")
    behind = modules_behind("workbench.federated.claims.catalogue.membership")
    names = {name.rsplit(".", 1)[-1] for name in behind}
    assert names == {"membership", "memorised", "setting"}


def test_a_verdict_waits_for_all_seeds(claim, tmp_path):
    assert survey([claim], tmp_path)[0].verdict == NOT_RUN
    run([claim], (0, 1), tmp_path, progress=False, report=str)
    (found,) = survey([claim], tmp_path)
    assert found.verdict == TOO_FEW
    assert found.interval is not None
    assert np.isnan(to_frame([found])["p, Holm"][0])


def test_the_correction_takes_back_what_one_test_among_many_would_find(claim):
    values = dict.fromkeys(range(3), None)
    done = results.SeedResult({"new": 1.0, "old": 1.0}, 1.0, "code", {})
    effects = {"weak": (0.25, 0.3, 0.4), "nothing": (-0.1, 0.1, 0.3)}
    found = []
    for name, each in effects.items():
        mine = dataclasses.replace(claim, id=name, beside=())
        seeds = {
            s: dataclasses.replace(done, values={"new": 1.0, "old": 1.0 + e})
            for s, e in zip(values, each, strict=True)
        }
        found.append(evidence(mine, results.Recorded(name, mine.fingerprint(), {}, seeds)))
    frame = to_frame([found[0], *[found[1]] * 3])
    assert frame["verdict"].tolist() == [SUPPORTED] + [UNDECIDED] * 3
    assert frame["after Holm"][0] == UNDECIDED
    assert to_frame(found[:1])["after Holm"][0] == SUPPORTED


def test_what_an_experiment_must_return(claim):
    for wrong in ({"new": 1.0}, {**experiment(0), "more": 1}, {**experiment(0), "old": np.inf}):
        with pytest.raises(RuntimeError, match="it measures"):
            dataclasses.replace(claim, experiment=lambda seed, given=wrong: given).measure(0)
    for name, value in {"named": ("S9",), "smallest": 0.0, "seeds": (1, 1)}.items():
        with pytest.raises(ValueError, match="'falls'"):
            dataclasses.replace(claim, **{name: value})


def test_the_catalogue_is_within_its_limits():
    ids = [claim.id for claim in claims.CLAIMS]
    assert len(set(ids)) == len(ids) >= 20
    assert [len(claim.seeds) for claim in claims.CLAIMS].count(3) <= 4  # those on SmolLM2
    assert {len(claim.seeds) for claim in claims.CLAIMS} == {3, 5}
    assert all(claim.sentence.endswith(".") and claim.limits for claim in claims.CLAIMS)


def test_recorded_results_are_of_claims_and_say_what_they_were_made_with():
    known = {claim.id: claim for claim in claims.CLAIMS}
    for path in claims.RESULTS.glob("*.json"):
        recorded = results.read(known[path.stem])
        assert recorded.definition.keys() == known[path.stem].definition().keys()
        for seed in recorded.seeds.values():
            assert {"python", "torch", "flwr"} <= seed.versions.keys()
            assert seed.seconds >= 0
            assert set(seed.values) >= set(recorded.definition["arms"])


def test_the_command_prints_the_table_and_refuses_unknown_claims(tmp_path, capsys):
    assert __main__.main(["--results", str(tmp_path), "show", "together"]) == 0
    assert NOT_RUN in capsys.readouterr().out
    assert __main__.main(["show", "watermark"]) == 0
    alone = capsys.readouterr().out.splitlines()[1].split()
    assert __main__.main(["show"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if " watermark " in f" {line} "]
    assert row.split() == alone  # corrected over the whole catalogue, whatever is asked for
    (tmp_path / "together.json").write_text("{}")
    assert __main__.main(["--results", str(tmp_path), "show", "together"]) == 2
    assert "together.json is no record of a claim" in capsys.readouterr().err
    assert __main__.main(["--results", str(tmp_path / "together.json"), "show"]) == 2
    assert "is a file" in capsys.readouterr().err
    assert __main__.main(["show", "perpetual-motion"]) == 2
    assert "there are pretrained-rounds" in capsys.readouterr().err


def test_a_damaged_partial_record_is_never_read(claim, tmp_path):
    (tmp_path / "falls.partial-1").write_text("{")
    assert results.read(claim, tmp_path) is None
    run([claim], (0,), tmp_path, progress=False, report=str)
    assert json.loads((tmp_path / "falls.json").read_text())["claim"] == "falls"
