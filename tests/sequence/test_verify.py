"""`verify` passes every strategy of ours, and finds and places every planted mistake."""

import time

import pytest
import torch.distributed as dist
from mutants import (
    Aliased,
    AlwaysCausal,
    CountedTwice,
    NeverSwitches,
    NoF,
    NoMask,
    NoRescale,
    NoSum,
    NoSwitchBack,
    OnlySays,
    PaddedKeys,
    Remembers,
    SaysForward,
    SeedPerRank,
    TensorOrder,
    Transposed,
    TwoSamples,
    Unlike,
    Unrecorded,
    WrongText,
)
from own_ring import OwnRing

import workbench as wb
from workbench.conformance.report import CHECKS
from workbench.strategies import DSP, MESHED, STRATEGIES, Ulysses

#: The two plainest models: enough to find what is planted here, and quick.
PLAIN = ("two dims", "uneven, a batch")


@pytest.mark.parametrize("name", STRATEGIES)
def test_ours_pass(name):
    # The folder's other tests hold every strategy to one device; one is verified in full here.
    full = name == "dsp"
    models = None if full else [*PLAIN, "all dims jointly", "one head"]
    report = wb.verify(name, ranks=(2, 3) if full else (3,), models=models)
    report.assert_passed()
    assert report.first is None
    assert all(report.counts[check] for check in CHECKS), "a check was never made"
    assert str(report).startswith(f"{name}: passed")
    assert report._repr_markdown_().count("✔") == len(CHECKS)


def test_options_and_own_classes_pass():
    assert wb.verify("ring", ranks=(3,), order="zigzag", models=PLAIN).passed
    report = wb.verify(OwnRing, ranks=(2,), models=PLAIN)
    report.assert_passed()
    assert any("needs dims that p=2 divides" in refusal for refusal in report.refused)


def said(difference):
    """Its text in one line."""
    return " ".join(str(difference).split())


MUTANTS = {
    NoSum: ("gradients", "gradient of layers.1.mlp.1.down.bias", "all-reduce of them is missing"),
    NoF: ("gradients", "gradient of layers.1.mlp.1.norm.bias", "all-reduce of them is missing"),
    NoRescale: ("output", "output of layers.0.attention.1", "exp(its log-sum-exp - the total's)"),
    Aliased: ("gradients", "gradient of layers.1.attention.1.query", "a backward is wrong"),
    PaddedKeys: ("output", "output of layers.0.attention.1", "wrong only where there is padding"),
    NoSwitchBack: ("output", "output of layers.1.attention.0", "'space' is cut while this stage"),
    Transposed: ("output", "input of layers.0.attention.1", "rank 0 holds what belongs to rank 1"),
    SeedPerRank: ("one sample", "layers.0.attention.0.norm.weight", "`shard_weights`"),
    CountedTwice: ("sent", "record 1", "it sends once and records once"),
    Unrecorded: ("sent", "record 0", "it sends once and records once"),
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_planted_mistake_is_found_and_placed(mutant):
    check, tensor, hint = MUTANTS[mutant]
    report = wb.verify(mutant, ranks=(2,), models=PLAIN)
    assert not report.passed
    first = report.first
    assert first.check == check, report
    assert first.tensor.startswith(tensor), report
    assert hint in said(first), report
    assert None not in (first.layer, first.stage, first.rank, first.index)
    assert "FAILED" in report._repr_markdown_()
    with pytest.raises(AssertionError, match="First difference"):
        report.assert_passed()


def test_copies_of_heads_of_keys_in_the_wrong_order_are_found():
    report = wb.verify(Unlike, ranks=(2, 4), models=["two dims", "grouped queries"])
    assert report.first.check == "output", report
    assert "grouped queries" in report.first.case
    assert "p=4" in report.first.case


@pytest.mark.parametrize(
    ("mutant", "model"),
    [(TensorOrder, "causal in two dims"), (AlwaysCausal, "a window both ways"),
     (TwoSamples, "smaller than p")],
)  # fmt: skip
def test_what_only_one_model_shows_is_found_there(mutant, model):
    assert wb.verify(mutant, ranks=(2,), models=["two dims"]).passed
    report = wb.verify(mutant, ranks=(2,), models=["two dims", model])
    assert (report.first.check, model in report.first.case) == ("output", True), report


@pytest.mark.parametrize(
    ("mutant", "check"), [(SaysForward, "closed form"), (Remembers, "gradients")]
)
def test_what_only_a_checkpoint_shows_is_found_there(mutant, check):
    report = wb.verify(mutant, ranks=(2,), models=["two dims"])
    assert {(f.check, "computed again" in f.case) for f in report.failures} == {(check, True)}


def test_a_layout_that_is_only_said_is_found_by_its_shape():
    report = wb.verify(OnlySays, ranks=(2,), models=PLAIN)
    assert report.first.check == "runs"
    assert report.first.tensor == "input of layers.0.attention.1"
    assert "its shape is (1, 2, 12, 24), but a rank's part" in report.first.text


class Raises(DSP):
    def enter(self, h, layout):
        if self.comm.rank == 1:
            raise KeyError("the planted mistake")
        return h


class Hangs(DSP):
    def enter(self, h, layout):
        if self.comm.rank == 1:
            dist.recv(h.detach().clone(), group=self.comm.group, group_src=0)
        return h


class Sleeps(DSP):
    def enter(self, h, layout):
        if self.comm.rank == 1:
            time.sleep(600)
        return h


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (Raises, "It raised on rank 1: KeyError: 'the planted mistake' (test_verify.py:"),
        (Hangs, "It raised on rank"),  # its time is up, or its peer's was and it has left
        (Sleeps, "had not finished after 6 s"),
    ],
)
def test_what_fails_or_hangs_on_one_rank_is_reported(wrong, text):
    report = wb.verify(wrong, ranks=(2, 3), models=PLAIN, timeout_s=2)
    assert report.first.check == "runs"
    assert text in report.first.text
    assert "p=2" in report.first.case
    assert len(report.failures) == 1


class NoCheck(Ulysses):
    """Accepts any number of heads and breaks in the ranks."""

    @classmethod
    def check(cls, geometry, p):
        if p == 1:
            raise ValueError("one rank is too few")


class WrongError(Ulysses):
    @classmethod
    def check(cls, geometry, p):
        assert geometry.num_heads % p == 0


class Refuses(DSP):
    @classmethod
    def check(cls, geometry, p):
        raise ValueError("no")


class Hoards(DSP):
    seen = []  # noqa: RUF012

    def enter(self, h, layout):
        self.seen.append(h)
        return h


class Keeps(DSP):
    """No gradient comes back through a detached branch."""

    def enter(self, h, layout):
        return h.detach()


class SomeFaked(DSP):
    """Another path on real ranks; each sends the same."""

    def arrange(self, x, layout, stage, upcoming):
        if not x.is_meta and self.comm.size > 1 and not upcoming:
            x = self.comm.relayout(x, layout, layout.with_split(None))
            x = self.comm.relayout(x, layout.with_split(None), layout)
        return super().arrange(x, layout, stage, upcoming)


class TwiceTheLoss(DSP):
    """Gradients p times too large."""

    def __init__(self, comm, geometry, shard=None):
        super().__init__(comm, geometry, shard)
        total = comm.sum_gradients

        def twice(gradients, *more):
            gradients = list(gradients)
            total(gradients, *more)
            for gradient in gradients:
                gradient.mul_(comm.size)

        comm.sum_gradients = twice


@pytest.mark.parametrize(
    ("wrong", "check", "text"),
    [
        (NoCheck, "refusals", "every strategy runs on one rank"),
        (WrongError, "refusals", "`check` raised AssertionError"),
        (Refuses, "refusals", "`check` raised ValueError: no"),
        (Hoards, "repeats", "tensors outlive their step"),
        (Keeps, "runs", "no gradient has reached layers.1.mlp.1.norm.bias"),
        (SomeFaked, "faked", "the faked log's is"),
        (TwiceTheLoss, "gradients", "it is 2 times too large"),
    ],
)
def test_other_mistakes(wrong, check, text):
    report = wb.verify(wrong, ranks=(2,), models=[*PLAIN, "one head"])
    assert check in {failure.check for failure in report.failures}, report
    assert any(text in said(f) for f in report.failures if f.check == check), report


def test_only_the_models_that_are_asked_for_are_tried():
    report = wb.verify("dsp", ranks=(2,), models=("all dims jointly", "two dims"))
    report.assert_passed()
    assert [refusal.split(", p=")[0] for refusal in report.refused] == ["all dims jointly"]
    # Both on one rank; on two one, in three dtypes, with checkpoints, and again.
    assert report.counts["output"] == 7


def test_what_is_no_strategy_is_refused():
    with pytest.raises(ValueError, match="did you mean 'dsp'"):
        wb.verify("dps")
    with pytest.raises(ValueError, match="no option 'colour'"):
        wb.verify("dsp", colour="red")
    with pytest.raises(ValueError, match="a number of ranks above 1"):
        wb.verify("dsp", ranks=(1,))
    with pytest.raises(ValueError, match=r"models out of \['two dims'.*got \['four dims'\]"):
        wb.verify("dsp", models=["four dims"])


@pytest.mark.parametrize("name", MESHED)
def test_strategies_of_two_axes_get_meshes(name):
    report = wb.verify(name, ranks=(2,), models=[*PLAIN, "one dim"])
    report.assert_passed()
    first, second = MESHED[name].axes
    assert all(report.counts[check] for check in CHECKS)
    assert any(f"p=2 as {first} 1 x {second} 2" in text for text in report.refused) == (
        name != "usp"
    )


@pytest.mark.parametrize(
    ("wrong", "model", "tensor"),
    [
        (NoMask, "samples of two lengths", "output of layers.0.attention.0"),
        (WrongText, "a text", "output of layers.0.cross.0"),
        (WrongText, "a text, cut", "output of layers.0.cross.0"),
    ],
)
def test_samples_and_texts_are_looked_at(wrong, model, tensor):
    report = wb.verify(wrong, ranks=(2,), models=["two dims", model])
    assert report.first.check == "output"
    assert report.first.tensor == tensor
    assert model in report.first.case


def test_a_mistake_is_placed_even_where_a_later_model_raises():
    """Without the switch a mask does not fit; a plainer model says what is wrong."""
    models = ["two dims", "samples of two lengths"]
    report = wb.verify(NeverSwitches, ranks=(2,), models=models)
    assert "runs" in {failure.check for failure in report.failures}
    assert report.first.check == "output"
    assert report.first.index is not None
