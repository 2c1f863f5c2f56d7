"""What a step of somebody's own strategy computes and sends: from faked steps of few layers.

A layer more sends and computes what the second layer does more than the first.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from workbench.collectives import is_bucket
from workbench.step import fake_step
from workbench.strategies import Strategy
from workbench.traffic import Sent
from workbench.transformer import TransformerSpec
from workbench.work import Kernel, kernels

_BUCKET = "gradients"


def counted(
    spec: TransformerSpec, cls: type[Strategy], given: Mapping[str, Any]
) -> tuple[list[Sent], list[Kernel]]:
    """Collectives and kernels of one rank in one step of ``spec``.

    Parameters
    ----------
    spec, cls : TransformerSpec, type of Strategy
        What is asked for.
    given : mapping
        Arguments of `fake_step`.

    Notes
    -----
    Kernels are those of one device, each with the part of its flops and bytes that faked rank 0 has
    of all flops; where ranks differ, such as under a causal mask, others may have more. A schedule
    over K dims repeats itself after K - 1 layers, so that is what the slope is taken over.
    """
    period, layers = max(1, len(spec.dims) - 1), spec.num_layers
    first = period + layers % period if layers > period else layers
    one, two = (
        fake_step(replace(spec, num_layers=n), cls, **given) for n in (first, first + period)
    )
    times = (layers - first) // period
    sent = _extrapolated(_counts(one.log), _counts(two.log), times)
    flops = one.flops + times * (two.flops - one.flops)
    memory = {name: given[name] for name in ("checkpoint", "accumulate")}
    alone = {"p": 1, "dtype": given["dtype"], "shard": None, **memory}
    whole = kernels(spec, Strategy, **alone)
    part = flops / sum(k.flops * k.count for k in whole)
    return sent, [k._replace(flops=k.flops * part, bytes=k.bytes * part) for k in whole]


def _counts(log) -> Counter:
    """How often each collective is sent; of a bucket of gradients, which grows, its bytes."""
    buckets = {
        (_BUCKET, r.kind, r.axis, Fraction(r.sent_bytes, r.input_bytes)): r.input_bytes
        for r in log
        if is_bucket(r.phase, r.kind)
    }
    return Counter(buckets) | Counter(
        (r.kind, r.axis, r.phase, r.stage, r.input_bytes, r.sent_bytes)
        for r in log
        if not is_bucket(r.phase, r.kind)
    )


def _extrapolated(one: Counter, two: Counter, times: int) -> list[Sent]:
    found = []
    for key in one | two:
        count = one[key] + times * (two[key] - one[key])
        if key[0] == _BUCKET:
            _, kind, axis, factor = key
            found.append(Sent(kind, axis, "gradients", None, count, int(factor * count), 1))
        elif count:
            found.append(Sent(*key, count))
    return found
