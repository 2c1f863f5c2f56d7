"""Exercises on writing a strategy: its closed form, a ring's merge, and targets in bytes."""

import torch

from workbench.conformance import verify
from workbench.conformance.report import Report
from workbench.exercises.checking import Case, Exercise, Grade, Verdict, by_cases
from workbench.exercises.many_dims import random_spec, words
from workbench.step import fake_step
from workbench.strategies import Strategy
from workbench.strategies.attention import attention_with_lse
from workbench.transformer import TransformerSpec


class _GatherAll(Strategy):
    """Queries, keys and values are gathered whole; every rank computes all and keeps its part."""

    name, cuts_sequence = "gather-all", True

    def attend(self, q, k, v, layout, stage):
        if layout.split not in stage:
            return super().attend(q, k, v, layout, stage)
        whole = [self._whole(t, self.geometry.heads(layout, t.shape[-2])) for t in (q, k, v)]
        heads = self.geometry.heads(layout)
        out = super().attend(*whole, layout, stage)
        return self.comm.relayout(out, heads.with_split(None), heads)

    def _whole(self, t, heads):
        return self.comm.relayout(t, heads, heads.with_split(None))


def _gather_elements(rng):
    cases = []
    for p, kv_heads in ((2, 12), (3, 12), (4, 12), (2, 4), (3, 6)):
        spec = random_spec(rng, p, num_kv_heads=kv_heads)
        step = fake_step(spec, _GatherAll, p=p, shard="time", dtype="float32")
        expected = [sent // 4 for sent in (step.forward_bytes, step.backward_bytes)]
        note = "keys and values have fewer heads" if kv_heads < 12 else ""
        sizes = {"num_layers": spec.num_layers, "num_kv_heads": kv_heads, "p": p}
        where = words(spec.dims, batch=spec.batch, **sizes)
        cases.append(Case((spec, p, "time", spec.branches), expected, where, p, note))
    return cases


check_gather_elements = Exercise(
    "Write f(geometry, p, shard, branches), which returns a list of two: the elements that one "
    "rank sends forward and backward if queries, keys and values are gathered whole.",
    (
        "An all-gather sends a rank's whole part to each of the others. It happens only in "
        "branches whose stage has the cut dim in it; an MLP's branch is None.",
        "Backward, the gradient of each gathered tensor is there whole, and a rank just takes its "
        "part of it. What was cut forward is gathered backward: one tensor, the output.",
    ),
    by_cases(
        _gather_elements,
        {
            "Backward is not like forward here.": lambda spec, p, shard, branches: (
                [_gathered(spec, p, shard, branches)] * 2
            ),
        },
    ),
)


def _gathered(spec, p, shard, branches) -> int:
    crossing = sum(stage is not None and shard in stage for stage in branches)
    tensors = spec.num_heads + 2 * spec.kv_heads
    return crossing * (p - 1) * spec.local_elements(shard, p) * tensors // spec.num_heads


def _merges(rng):
    cases = []
    for scale in (1, 1, 3, 900):
        keys, more = rng.randint(2, 6), rng.randint(2, 6)
        g = torch.Generator().manual_seed(rng.randrange(1000))
        q = torch.randn(2, 3, 4, 8, generator=g, dtype=torch.float64) * scale
        k, v = torch.randn(2, 2, 3, keys + more, 8, generator=g, dtype=torch.float64)
        parts = [attention_with_lse(q, k[..., s, :], v[..., s, :]) for s in _halves(keys)]
        given = (*parts[0], *parts[1])
        expected = list(attention_with_lse(q, k, v))
        note = "the scores are so large that exp overflows" if given[1].max() > 709 else ""
        where = f"{keys} keys and then {more}, scores up to about {given[1].max():.0f}"
        cases.append(Case(given, expected, where, None, note))
    return cases


def merged(out, lse, new_out, new_lse):
    """Merge attention over some more keys into attention over those so far."""
    total = torch.logaddexp(lse, new_lse)
    old, new = ((part - total).exp()[..., None] for part in (lse, new_lse))
    return [out * old + new_out * new, total]


def _halves(keys: int) -> tuple[slice, slice]:
    return slice(keys), slice(keys, None)


check_merge = Exercise(
    "Write f(out, lse, new_out, new_lse), which merges attention over two sets of keys: it returns "
    "[out, lse] over both. lse is the log of the sum of exp(scores), one for each query.",
    (
        "Each out is an average. Its weight in the merged one is its share of all exp(scores).",
        "total = torch.logaddexp(lse, new_lse) is the new lse. Both outs are rescaled, by "
        "exp(own lse - total); lse lacks out's last dim, so use [..., None].",
    ),
    by_cases(
        _merges,
        {
            "The old part keeps its full weight; it must shrink when more keys come.": (
                lambda out, lse, new_out, new_lse: [
                    out + new_out * (new_lse - torch.logaddexp(lse, new_lse)).exp()[..., None],
                    torch.logaddexp(lse, new_lse),
                ]
            ),
        },
    ),
)

#: The model that targets in bytes are about.
TARGET = TransformerSpec(
    dims={"time": 8, "space": 16}, stages=("space", "time"), d_model=32, num_heads=8, num_layers=2
)


#: The models of `verify` that an answer is tried on: one at first, which shows most mistakes soon;
#: and, if it also meets the target, enough for what goes wrong here.
_FIRST, _GRADED = ("two dims",), ("two dims", "uneven, a batch", "smaller than p", "one head")


def _as_cheap_as(known: str) -> Grade:
    """Grade a strategy: `verify` passes, and it sends forward no more than a known one."""

    def grade(answer) -> Verdict:
        if not (isinstance(answer, type) and issubclass(answer, Strategy)):
            text = f"You gave {answer!r}; a subclass of workbench.strategies.Strategy is asked for."
            return Verdict(False, text)
        report = verify(answer, ranks=(2,), models=_FIRST)
        if not report.passed:
            return _failed(report)
        for p in (2, 4):
            try:
                sent = fake_step(TARGET, answer, p=p, shard="time").forward_bytes
            except ValueError as refusal:
                return Verdict(False, f"It does not run the model of the target: {refusal}.")
            times = sent / fake_step(TARGET, known, p=p, shard="time").forward_bytes
            if times > 1:
                text = f"It computes the right thing, but on {p} ranks it sends {times:.3g} times "
                return Verdict(False, f"{text}the target.")
        report = verify(answer, ranks=(2, 3), models=_GRADED)
        if not report.passed:
            return _failed(report)
        return Verdict(True, f"Right. verify passes, and {answer.__name__} meets the target.")

    return grade


def _failed(report: Report) -> Verdict:
    return Verdict(False, f"verify found {len(report.failures)} failures. {report.first}")


check_by_heads = Exercise(
    "Write a strategy that passes verify and, on the model above, sends forward no more than four "
    "all-to-alls of the stream in each stage along the cut dim, which stays cut.",
    (
        "Inside attend, a rank may have all tokens of some heads instead of some tokens of all: "
        'heads = self.geometry.heads(layout); heads.with_split("heads") is that layout.',
        "Queries, keys and values go there, the output comes back. In check, refuse heads that p "
        "does not divide, and num_kv_heads other than num_heads, by a ValueError; not for p = 1.",
    ),
    _as_cheap_as("ulysses"),
)

check_by_switch = Exercise(
    "Write a strategy that passes verify and, on the model above, sends forward no more than one "
    "all-to-all of the stream before each stage along the dim that is cut at that time.",
    (
        "Override arrange. If the stage has the cut dim in it, move the cut to a dim that is not "
        "in it: layout.with_split(dim), and self.comm.relayout moves the tensor.",
        "The model's dims are self.geometry.dims. For the closed form, follow the cut through the "
        "branches: a switch sends p - 1 chunks, and both dims are padded to a multiple of p. Where "
        "a stage has all dims, check raises ValueError; not for p = 1.",
    ),
    _as_cheap_as("dsp"),
)
