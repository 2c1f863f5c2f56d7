"""One training step, three ways: faked, run for real, and as a closed form."""

import argparse
import os
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace

import torch

from workbench.closed_form import DTYPES, closed_form_bytes, prepared
from workbench.comm import Comm
from workbench.dims import check_count, check_seed
from workbench.launch import run_local, run_torchrun
from workbench.meter import Meter
from workbench.outcome import FakedStep, RealStep, compare
from workbench.rank import RankStep, rank_step
from workbench.strategies import STRATEGIES, Strategy
from workbench.transformer import PRESETS, TransformerSpec
from workbench.units import human_bytes, human_seconds


def fake_step(
    spec: TransformerSpec,
    strategy: str | type[Strategy],
    *,
    p: int,
    dtype: str = "float32",
    seed: int = 0,
    shard: str | None = None,
    mesh: Mapping[str, int] | None = None,
    checkpoint: str = "none",
    switch: str = "inside",
    accumulate: int = 1,
    fsdp: bool | str = False,
    autocast: bool = False,
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
    checkpoint : {"none", "block", "selective"}
        What the backward computes again: nothing; each attention with its MLP, and so all that
        they send; or the MLPs' hidden units only, for which nothing is sent.
    switch : {"inside", "outside"}
        Is the re-layout ahead of an attention inside its checkpointed block?
    accumulate : int
        Parts that the batch is cut into, one after another; weights' gradients are summed once.
    fsdp : {False, True, "keep"}
        Cut weights and their gradients over all ranks, too (ZeRO's third stage, by torch's FSDP):
        ``weight_bytes`` are gathers ahead of each branch's forward and backward, and gradients
        are scattered as they are summed. ``"keep"`` keeps a branch's weights whole in between.
        For strategies whose ranks hold all weights otherwise.
    autocast : bool
        Matrix products and attention in bfloat16 by torch's autocast, and what they make travels
        as such; weights, their gradients and the residual stream stay in ``dtype``.
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
    memory = {"checkpoint": checkpoint, "switch": switch, "accumulate": accumulate,
              "fsdp": fsdp, "autocast": autocast}  # fmt: skip
    check_seed(seed)
    cls, shard = prepared(spec, strategy, p, dtype, shard, mesh, memory, options)
    sharded = fsdp and p > 1
    on_cpu = sharded or autocast  # neither knows meta tensors

    def on_rank(rank, comm):
        device = torch.device("cpu" if on_cpu else "meta")
        step = RankStep(comm, spec, cls, dtype, seed, shard, device, mesh, **memory)
        with Meter(leaf for _, leaf in step.leaves()) as meter:
            step.run()
        return FakedStep(cls.name, p, dtype, shard, comm.log, meter.flops, meter.peak_bytes)

    with _fake_tensors(p if sharded else None) if on_cpu else nullcontext():
        return on_rank(0, Comm(p))


def _fake_tensors(p: int | None):
    from workbench.fsdp import faked  # here: torch's FSDP takes a second to load

    return faked(p)


def run_step(
    spec: TransformerSpec,
    strategy: str | type[Strategy],
    *,
    p: int,
    dtype: str = "float32",
    seed: int = 0,
    shard: str | None = None,
    mesh: Mapping[str, int] | None = None,
    checkpoint: str = "none",
    switch: str = "inside",
    accumulate: int = 1,
    fsdp: bool | str = False,
    autocast: bool = False,
    repeats: int = 1,
    threads: int = 1,
    timeout_s: float = 300.0,
    **options,
) -> RealStep:
    """Run one training step on ``p`` processes and compare it with one device.

    Parameters
    ----------
    spec, strategy, p, dtype, seed, shard, mesh, checkpoint, switch, accumulate, fsdp,
    autocast, **options
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
    memory = {"checkpoint": checkpoint, "switch": switch, "accumulate": accumulate,
              "fsdp": fsdp, "autocast": autocast}  # fmt: skip
    check_seed(seed)
    cls, shard = prepared(spec, strategy, p, dtype, shard, mesh, memory, options)
    started = time.perf_counter()
    ranks = run_local(
        lambda rank, comm: rank_step(comm, spec, cls, dtype, seed, shard, repeats, mesh, **memory),
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
    checkpoint: str = "none",
    switch: str = "inside",
    accumulate: int = 1,
    fsdp: bool | str = False,
    autocast: bool = False,
    repeats: int = 1,
    **options,
) -> RealStep | None:
    """`run_step` on the ranks that torchrun has started; the result on rank 0, else None."""
    p = int(os.environ["WORLD_SIZE"])
    check_count("repeats", repeats)
    memory = {"checkpoint": checkpoint, "switch": switch, "accumulate": accumulate,
              "fsdp": fsdp, "autocast": autocast}  # fmt: skip
    check_seed(seed)
    cls, shard = prepared(spec, strategy, p, dtype, shard, mesh, memory, options)
    started = time.perf_counter()
    ranks = run_torchrun(
        lambda rank, comm: rank_step(comm, spec, cls, dtype, seed, shard, repeats, mesh, **memory)
    )
    if ranks is None:
        return None
    run = {"dtype": dtype, "seed": seed, "shard": shard}
    return compare(ranks, spec, cls, run, time.perf_counter() - started)


def _options(strategy: str, given: list[str]) -> dict[str, object]:
    """Options from ``NAME=VALUE``; a value that the strategy knows is meant by its text."""
    known, found = STRATEGIES[strategy].options, {}
    for name, _, text in (option.partition("=") for option in given):
        meant = {str(value): value for value in known.get(name, ())}
        found[name] = meant.get(text, text)
    return found


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
    try:
        options = _options(given.strategy, given.option)
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
