"""Where the ranks' share of a step first differs from one device's."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from workbench.collectives import Collective
from workbench.conformance.attempt import Attempt, Moment, Raised
from workbench.conformance.cases import Case
from workbench.conformance.report import Difference
from workbench.layout import Layout, take_shard, trim_shard
from workbench.rank import Held
from workbench.step import closed_form_bytes
from workbench.strategies.padding import real_tokens
from workbench.transformer import initial_weights

#: Largest error of a dtype, over one device's largest value in float64.
BOUNDS = {"float64": 1e-10, "float32": 1e-5, "bfloat16": 0.05}

#: Yields what is wrong with a case, the first first.
Check = Callable[[Case, list[Attempt], Attempt], Iterator[Difference]]


def wrong_shapes(
    case: Case, ranks: Sequence[Attempt | Raised], one: Attempt
) -> Iterator[Difference]:
    """Parts of the stream that are not of the shape that their layout says."""
    for rank, attempt in enumerate(ranks):
        for moment, other in zip(attempt.stream, ranks[0].stream, strict=False):
            layout, shape = moment.layout, tuple(moment.part.shape)
            if not isinstance(layout, Layout) or layout.sizes != one.start.layout.sizes:
                text = f"`arrange` returned {layout!r}, which is no layout of the stream."
            elif shape != layout.local_shape(moment.size):
                text = f"its shape is {shape}, but a rank's part in the layout {layout} that "
                text += f"`arrange` returned has the shape {layout.local_shape(moment.size)}."
            elif str(layout) != str(other.layout):
                text = f"it has the layout {layout}, but {other.layout} on rank 0."
            else:
                continue
            hint = (
                "`arrange` returns the tensor and its layout, alike on all ranks: they must agree"
            )
            yield replace(_at(moment, "runs", case, rank), text=text, hint=hint)


def one_sample(case: Case, ranks: list[Attempt], one: Attempt) -> Iterator[Difference]:
    """Weights of a rank that are not its part of the one set."""
    for name, whole in initial_weights(case.spec, dtype=case.dtype).items():
        for rank, attempt in enumerate(ranks):
            expected = _weight_part(name, whole, case, rank)
            base = Difference("one sample", str(case), "", rank=rank, tensor=name)
            base = replace(base, **_place_of(name, one))
            yield from _differ(base, attempt.weights[name], expected, (), 0.0, 1.0)


def output(case: Case, ranks: list[Attempt], one: Attempt) -> Iterator[Difference]:
    """Parts of the residual stream that are not one device's, in the order of the model."""
    for i, whole in enumerate(one.stream):
        for rank, attempt in enumerate(ranks):
            moment = attempt.stream[i]
            layout, part = moment.layout, moment.part
            if layout.value == "partial":
                part = sum(other.stream[i].part for other in ranks)
            at = Held(layout, moment.rank, moment.size)
            real = _real(case, at)
            expected = take_shard(whole.part, *at) * real
            found, expected = (trim_shard(t, *at) for t in (part * real, expected))
            held = _entries(at)
            base = _at(moment, "output", case, rank)
            bound, scale = BOUNDS[case.dtype], whole.part.abs().max().item()
            for wrong in _differ(base, found, expected, held, bound, scale):
                hint = _stream_hint(case, moment, found, whole, rank, bound * scale)
                yield replace(wrong, hint=hint)


def _stream_hint(case, moment, found, whole, rank, bound) -> str:
    """What the pattern of a wrong part of the stream tells."""
    layout, stage = moment.layout, moment.place.stage
    for other in range(0 if case.axes else case.p):
        part = trim_shard(take_shard(whole.part, layout, other, case.p), layout, other, case.p)
        if other != rank and part.shape == found.shape and _close(found, part, bound):
            return (
                f"rank {rank} holds what belongs to rank {other}: the order of the ranks is mixed "
                "up where the parts are cut or joined"
            )
    if moment.when == "input":
        return (
            "the stream was right after the branch before, so `arrange` broke it: either the "
            f"tensor was not moved, or it does not have the layout {layout} that `arrange` returned"
        )
    if stage is not None and layout.split in stage:
        return (
            f"{layout.split!r} is cut while this stage attends along {tuple(stage)}: every rank "
            "needs keys and values of all the others. Move the cut in `arrange` before the stage, "
            "or exchange them in `attend`; where a softmax is merged from parts, every part is "
            "weighted by exp(its log-sum-exp - the total's)"
        )
    return ""


def gradients(case: Case, ranks: list[Attempt], one: Attempt) -> Iterator[Difference]:
    """Gradients that are not one device's, in the order in which backward makes them."""
    bound, scale = BOUNDS[case.dtype], max(t.abs().max().item() for t in one.gradients.values())
    for name in reversed(one.gradients):
        parts = [attempt.gradients[name] for attempt in ranks]
        for rank, attempt in enumerate(ranks):
            expected = _gradient_part(name, one.gradients[name], case, attempt.start, rank)
            base = Difference("gradients", str(case), "", rank=rank, tensor=f"gradient of {name}")
            base = replace(base, **_place_of(name, one))
            if parts[rank] is None or parts[rank].shape != expected.shape:
                shape = "there is none" if parts[rank] is None else f"{tuple(parts[rank].shape)}"
                yield replace(base, text=f"its shape: {shape}; not {tuple(expected.shape)}")
                continue
            found, held = parts[rank], ()
            if name == "input":
                held = _entries(attempt.start)
                found, expected = (trim_shard(t, *attempt.start) for t in (found, expected))
            for wrong in _differ(base, found, expected, held, bound, scale):
                yield replace(wrong, hint=_gradient_hint(parts, found, expected, bound * scale))


def _gradient_hint(parts, found, expected, bound) -> str:
    p = len(parts)
    same_shape = all(part is not None and part.shape == expected.shape for part in parts)
    if same_shape and _close(sum(part.double() for part in parts), expected, bound * p):
        return "the ranks' gradients add up to the right one: an all-reduce of them is missing"
    if _close(found / p, expected, bound):
        return f"it is {p} times too large: the ranks' gradients are summed once too often"
    return ""


def padding(case: Case, ranks: list[Attempt], one: Attempt) -> Iterator[Difference]:
    """Padding of the input that has a gradient: so the loss depends on it."""
    for rank, attempt in enumerate(ranks):
        gradient = attempt.gradients["input"].clone()
        trim_shard(gradient, *attempt.start).zero_()
        base = Difference("padding", str(case), "", rank=rank, tensor="gradient of input's padding")
        yield from _differ(base, gradient, torch.zeros_like(gradient), (), 0.0, 1.0)


def logs(case: Case, ranks: list[Attempt], one: Attempt) -> Iterator[Difference]:
    """Ranks whose log is not rank 0's."""
    for rank, attempt in enumerate(ranks):
        base = Difference("logs", str(case), "", rank=rank)
        yield from _first_record(base, attempt.log, ranks[0].log, "rank 0's")


def against_faked(case: Case, fake: Attempt, real: Attempt) -> Iterator[Difference]:
    """Tell where a real log is not the faked one."""
    base = Difference("faked", str(case), "", rank=0)
    yield from _first_record(base, real.log, fake.log, "the faked log's")


def sent(case: Case, ranks: list[Attempt], one: Attempt) -> Iterator[Difference]:
    """Ranks that have sent something else than they have logged."""
    for rank, attempt in enumerate(ranks):
        # On gloo a reduce-scatter is an all-to-all and a local sum.
        gloo = all(call.kind != "reduce_scatter" for call in attempt.sent)
        by = {"reduce_scatter": "all_to_all"} if gloo else {}
        logged = [(by.get(r.kind, r.kind), r.sent_bytes) for r in attempt.log]
        really = [(call.kind, call.sent_bytes) for call in attempt.sent]
        if _sums(logged) == _sums(really):
            continue
        # Backward, torch calls: only forward is it known which stage has sent something.
        number = 0
        for number, (r, call) in enumerate(zip(attempt.log, attempt.sent, strict=False)):
            place = r.phase != "forward" or (r.layer, r.stage) == (call.layer, call.stage)
            if logged[number] != really[number] or not place:
                break
        text = f"The log says {_words(logged)}; through the process group went {_words(really)}."
        record = attempt.log[number] if attempt.log else None
        yield _at_record(Difference("sent", str(case), text, rank=rank), number, record)


def closed_form(case: Case, ranks: list[Attempt], one: Attempt) -> Iterator[Difference]:
    """Phases whose sum in the log is not the closed form's."""
    for phase in ("forward", "backward", "gradients"):
        logged = sum(record.sent_bytes for record in ranks[0].log if record.phase == phase)
        how = {"p": case.p, "shard": case.shard, "dtype": case.dtype, "mesh": case.mesh}
        how["checkpoint"] = case.checkpoint
        try:
            predicted = closed_form_bytes(case.spec, case.cls, phase=phase, **how)
        except Exception as error:
            predicted = f"nothing: {type(error).__name__}: {error}"
        if predicted != logged:
            text = f"{phase}: each rank sent {logged} bytes, the closed form says {predicted}."
            yield Difference("closed form", str(case), text, tensor=f"bytes of the {phase}")


def repeats(case: Case, again: list[Attempt], before: list[Attempt]) -> Iterator[Difference]:
    """Ranks whose second run is not their first."""
    for rank, (attempt, earlier) in enumerate(zip(again, before, strict=True)):
        base = Difference("repeats", str(case), "", rank=rank)
        yield from _first_record(base, attempt.log, earlier.log, "the first run's")
        for moment, first in zip(attempt.stream, earlier.stream, strict=True):
            at = _at(moment, "repeats", case, rank)
            yield from _differ(at, moment.part, first.part, (), 0.0, 1.0)


def _differ(base, found, expected, held, bound, scale) -> Iterator[Difference]:
    """``base`` with the first entry that differs; ``held``: each dim's logical entries."""
    if found.shape != expected.shape:
        text = f"its shape is {tuple(found.shape)}, not {tuple(expected.shape)}"
        yield replace(base, text=text)
        return
    errors = (found.double() - expected.double()).abs()
    wrong = ~(errors <= bound * scale)  # NaN is wrong, too
    if wrong.any():
        local = wrong.nonzero()[0].tolist()
        index = tuple(dim[i] for dim, i in zip(held, local, strict=True)) if held else tuple(local)
        yield replace(
            base, index=index, found=found[tuple(local)].item(),
            expected=expected[tuple(local)].item(), error=errors.max().item() / scale,
        )  # fmt: skip


def _first_record(base, found: list, expected: list, whose: str) -> Iterator[Difference]:
    for i, (mine, other) in enumerate(itertools.zip_longest(found, expected)):
        if mine != other:
            text = f"record {i} is {_record(mine)}; {whose} is {_record(other)}."
            yield _at_record(replace(base, text=text), i, mine or other)
            return


def _at_record(base: Difference, number: int, record: Collective | None) -> Difference:
    if record is None:
        return replace(base, tensor="the log, which is empty")
    tensor = f"record {number}, {record.kind} of {record.dim} in the {record.phase}"
    where = f" ({record.where})" if record.where else ""
    return replace(
        base, layer=record.layer, stage=record.stage, tensor=tensor + where, index=(number,)
    )


def _record(record: Collective | None) -> str:
    if record is None:
        return "missing"
    return f"{record.kind} of {record.dim}, {record.sent_bytes} bytes, {record.phase}"


def _words(calls: list[tuple[str, int]]) -> str:
    return ", ".join(f"{size} bytes by {kind}" for kind, size in _sums(calls).items()) or "nothing"


def _sums(calls: list[tuple[str, int]]) -> Counter:
    total: Counter = Counter()
    for kind, size in calls:
        total[kind] += size
    return total


def _at(moment: Moment, check: str, case: Case, rank: int) -> Difference:
    place = moment.place
    tensor = f"{moment.when} of {place.name}"
    return Difference(check, str(case), "", place.layer, place.index, rank, tensor)


def _place_of(name: str, one: Attempt) -> dict[str, int]:
    """Layer and stage of a weight by its name; none for the input."""
    places = (m.place for m in one.stream if name.startswith(f"{m.place.name}."))
    return next(({"layer": place.layer, "stage": place.index} for place in places), {})


def _weight_part(name: str, whole: Tensor, case: Case, rank: int) -> Tensor:
    dim = case.cls.cut_dim(name)
    return whole if dim is None else whole.chunk(case.p, dim)[rank]


def _gradient_part(name, whole: Tensor, case: Case, start: Held, rank: int) -> Tensor:
    if name == "input":
        return take_shard(whole, *start)
    return _weight_part(name, whole, case, rank)


def _entries(at: Held) -> list[Sequence[int]]:
    """Which entries of each dim a rank holds."""
    return [at.layout.held(dim, at.rank, at.size) for dim in at.layout.sizes]


def _real(case: Case, at: Held) -> Tensor:
    """1 where a rank's token is one of its sample; what is computed of padding is nobody's."""
    if not case.spec.valid:
        return torch.ones(1)
    return real_tokens(case.spec.valid, *at)


def _close(found: Tensor, expected: Tensor, bound: float) -> bool:
    return (
        bool((found.double() - expected.double()).abs().max() <= bound) if found.numel() else False
    )
