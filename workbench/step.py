"""One training step, three ways: faked, run for real, and as a closed form."""

import argparse
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from math import prod

import torch

from workbench.collectives import Phase, sent_bytes
from workbench.dims import check_count
from workbench.launch import run_fake, run_local, run_torchrun
from workbench.layout import shard_size
from workbench.meter import Meter
from workbench.outcome import FakedStep, RealStep, compare
from workbench.rank import RankStep, rank_step
from workbench.strategies import STRATEGIES, Strategy, choose_shard, ranks_of, select
from workbench.transformer import PRESETS, TransformerSpec
from workbench.units import human_bytes, human_seconds

#: dtypes that a step runs in.
DTYPES = ("float32", "bfloat16", "float64")


def fake_step(
    spec: TransformerSpec,
    strategy: str | type[Strategy],
    *,
    p: int,
    dtype: str = "float32",
    seed: int = 0,
    shard: str | None = None,
    mesh: Mapping[str, int] | None = None,
    **options,
) -> FakedStep:
    """Go through one training step of rank 0 on meta tensors; any ``p``, nothing is sent.

    Parameters
    ----------
    spec : TransformerSpec
        The model and its input.
    strategy : str or class
        A key of `STRATEGIES`, or a subclass of `Strategy`.
    p : int
        Ranks.
    dtype : {"float32", "bfloat16", "float64"}
        Of weights and activations.
    seed : int
        Has no influence here; taken so that calls look like `run_step`'s.
    shard : str or None
        The dim that is cut before the first stage; ``None`` takes the one that costs the fewest
        bytes. Strategies that cut no dim ignore it.
    mesh : mapping of str to int, optional
        Ranks along each axis, the outermost (between nodes) first: ``{"ulysses": 2, "ring": 2}``
        for a strategy of two axes; with any strategy ``"data"`` may be one, which cuts the batch.
    **options
        Values of the strategy's own options, as ``wb.STRATEGIES[strategy].options`` lists them.

    Raises
    ------
    ValueError
        If the strategy can't run this; the message names those that can.

    Examples
    --------
    >>> from workbench.transformer import PRESETS
    >>> faked = fake_step(PRESETS["toy-video"], "dsp", p=4)
    >>> faked.forward_bytes == closed_form_bytes(PRESETS["toy-video"], "dsp", p=4, phase="forward")
    True
    """
    cls, shard = _prepare(spec, strategy, p, dtype, shard, mesh, options)

    def on_rank(rank, comm):
        step = RankStep(comm, spec, cls, dtype, seed, shard, torch.device("meta"), mesh)
        with Meter(leaf for _, leaf in step.leaves()) as meter:
            step.run()
        return FakedStep(cls.name, p, dtype, shard, comm.log, meter.flops, meter.peak_bytes)

    return run_fake(on_rank, p)


def run_step(
    spec: TransformerSpec,
    strategy: str | type[Strategy],
    *,
    p: int,
    dtype: str = "float32",
    seed: int = 0,
    shard: str | None = None,
    mesh: Mapping[str, int] | None = None,
    repeats: int = 1,
    threads: int = 1,
    timeout_s: float = 300.0,
    **options,
) -> RealStep:
    """Run one training step on ``p`` processes and compare it with one device.

    Parameters
    ----------
    spec, strategy, p, dtype, seed, shard, mesh, **options
        As for `fake_step`. Weights and input are drawn from ``seed``, the same for every
        strategy and ``p``.
    repeats : int
        Run the same step this many times, for its median time. The log is of the last one.
    threads, timeout_s
        As for `run_local`.

    Raises
    ------
    ValueError
        If the strategy can't run this; raised before anything is launched.
    RankError, TimeoutError
        As `run_local`.
    """
    check_count("repeats", repeats)
    cls, shard = _prepare(spec, strategy, p, dtype, shard, mesh, options)
    started = time.perf_counter()
    ranks = run_local(
        lambda rank, comm: rank_step(comm, spec, cls, dtype, seed, shard, repeats, mesh),
        p,
        threads=threads,
        timeout_s=timeout_s,
    )
    run = {"dtype": dtype, "seed": seed, "shard": shard}
    return compare(ranks, spec, cls, run, time.perf_counter() - started)


def torchrun_step(
    spec: TransformerSpec,
    strategy: str | type[Strategy],
    *,
    dtype: str = "float32",
    seed: int = 0,
    shard: str | None = None,
    mesh: Mapping[str, int] | None = None,
    repeats: int = 1,
    **options,
) -> RealStep | None:
    """`run_step` on the ranks that torchrun has started; the result on rank 0, else None."""
    p = int(os.environ["WORLD_SIZE"])
    check_count("repeats", repeats)
    cls, shard = _prepare(spec, strategy, p, dtype, shard, mesh, options)
    started = time.perf_counter()
    ranks = run_torchrun(
        lambda rank, comm: rank_step(comm, spec, cls, dtype, seed, shard, repeats, mesh)
    )
    if ranks is None:
        return None
    run = {"dtype": dtype, "seed": seed, "shard": shard}
    return compare(ranks, spec, cls, run, time.perf_counter() - started)


def closed_form_bytes(
    spec: TransformerSpec,
    strategy: str | type[Strategy],
    *,
    p: int,
    phase: Phase | None = None,
    dtype: str = "float32",
    shard: str | None = None,
    mesh: Mapping[str, int] | None = None,
    **options,
) -> int:
    """Bytes that one rank sends in one training step, by formula.

    Parameters
    ----------
    spec, strategy, p, dtype, shard, mesh, **options
        As for `fake_step`.
    phase : {None, "forward", "backward", "gradients"}
        ``None`` is forward + backward: what moves activations. ``"gradients"`` is the all-reduce
        of replicated weights' gradients, as one flat bucket.

    Raises
    ------
    ValueError
        If the strategy can't run this, or the phase is unknown.
    """
    cls, shard = _prepare(spec, strategy, p, dtype, shard, mesh, options)
    ranks, data = ranks_of(cls, p, mesh)
    if phase not in (None, "forward", "backward", "gradients"):
        raise ValueError(f"phase must be None, 'forward', 'backward' or 'gradients', got {phase!r}")
    if p == 1:
        return 0
    itemsize = getattr(torch, dtype).itemsize
    if phase == "gradients":
        return _gradient_bytes(spec, cls, ranks, data, itemsize)
    mine = replace(spec, batch=shard_size(spec.batch, data))
    sent = 0
    if ranks != 1 and phase != "backward":
        sent += cls.forward_elements(mine, ranks, shard, spec.branches)
    if ranks != 1 and phase != "forward":
        sent += cls.backward_elements(mine, ranks, shard, spec.branches)
    return sent * itemsize


def _gradient_bytes(spec, cls, ranks, data: int, itemsize: int) -> int:
    """A bucket over all ranks of what each used on other tokens; one over ``data`` of the rest."""
    own = ranks if isinstance(ranks, int) else prod(ranks.values())
    everywhere = along_data = 0
    for name, shape in replace(spec, num_layers=1).weight_shapes().items():
        replicated = cls.cut_dim(name) is None
        count = spec.num_layers * prod(shape) // (1 if replicated else own)
        if replicated and cls.cuts_sequence and (own > 1 or cls.axes):
            everywhere += count
        else:
            along_data += count
    buckets = ((everywhere, own * data), (along_data, data))
    return sum(
        sent_bytes("all_reduce", shard_size(count, p) * p * itemsize, p) for count, p in buckets
    )


def _prepare(spec, strategy, p, dtype, shard, mesh, options) -> tuple[type[Strategy], str | None]:
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}; got {dtype!r}")
    cls = select(strategy, spec, p, mesh, **options)
    ranks, data = ranks_of(cls, p, mesh)
    mine = replace(spec, batch=shard_size(spec.batch, data))
    return cls, choose_shard(cls, mine, ranks, spec.branches, shard)


def report(step: RealStep, spec: TransformerSpec, **options) -> str:
    """Say in a few lines what a step sent, predicted and measured, and how exact it was."""
    run = {"p": step.p, "dtype": step.dtype, "shard": step.shard, **options}
    rows = [f"{step.strategy}, {step.p} ranks, {step.dtype}, {human_seconds(step.seconds)} a step"]
    for phase in ("forward", "backward", "gradients"):
        sent = step.bytes_of(phase)
        off = closed_form_bytes(spec, step.strategy, phase=phase, **run) - sent
        rows.append(f"{phase:>9}: sent {human_bytes(sent)} a rank, predicted {off:+d} B")
    rows.append(f"   errors: output {step.max_error:.1e}, gradients {step.grad_error:.1e}")
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> None:
    """Run one step of a preset, on local processes or on the ranks that torchrun has started."""
    parser = argparse.ArgumentParser(prog="python -m workbench.step", description=main.__doc__)
    parser.add_argument("--preset", choices=PRESETS, default="toy-video")
    parser.add_argument("--strategy", choices=STRATEGIES, default="dsp")
    parser.add_argument("--p", type=int, default=4, help="ranks; under torchrun it decides")
    parser.add_argument("--layers", type=int, help="other than the preset's")
    parser.add_argument("--batch", type=int, help="other than the preset's")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--shard", help="the dim to cut first")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE",
                        help="an option of the strategy; may be given several times")  # fmt: skip
    given = parser.parse_args(arguments)
    changes = {"num_layers": given.layers, "batch": given.batch}
    run = {"dtype": given.dtype, "shard": given.shard, "repeats": given.repeats}
    options = dict(option.partition("=")[::2] for option in given.option)
    try:
        spec = replace(PRESETS[given.preset], **{k: v for k, v in changes.items() if v is not None})
        if "TORCHELASTIC_RUN_ID" in os.environ:
            step = torchrun_step(spec, given.strategy, **run, **options)
        else:
            step = run_step(spec, given.strategy, p=given.p, **run, **options)
    except ValueError as error:
        parser.error(str(error))
    if step is not None:
        print(report(step, spec, **options))


if __name__ == "__main__":
    main()
