"""Command: ``python -m workbench.train`` trains on local processes, or under torchrun."""

import argparse
import os
from dataclasses import replace
from statistics import fmean

from workbench.strategies import MESHED, STRATEGIES
from workbench.train.run import Training, fake_training, torchrun_train, train
from workbench.train.task import DIGITS, DTYPES, OPTIMIZERS, TrainTask
from workbench.units import human_bytes, human_seconds

#: Lines of progress in a run.
LINES = 10


def summary(run: Training) -> str:
    """Say in a few lines what was learned, what was sent, and how fast it was."""
    faked = fake_training(run.task, run.strategy, run.p, run.mesh)
    predicted = fmean(step.sent_bytes for step in faked)
    flops = fmean(step.flops for step in faked)
    before, after = run.held_out
    made = f"{len(run.losses)} steps, stopped" if run.stopped else f"{len(run.losses)} steps"
    rows = [
        f"{run.strategy}, {run.p} ranks, {run.task.dtype}, {made}",
        f"loss: {run.losses[0]:.4f} at first, {run.losses[-1]:.4f} at last; "
        f"held out: {before:.4f} before, {after:.4f} after",
    ]
    if run.step_seconds:
        rows.append(
            f"sent: {human_bytes(run.sent_bytes)} a rank and step, predicted "
            f"{predicted - run.sent_bytes:+g} B; weights' gradients "
            f"{human_bytes(run.gradient_bytes)}"
        )
        rows.append(
            f"time: {human_seconds(run.seconds)} a step (median), {run.tokens_per_s:,.0f} tokens/s"
        )
        rows.append(
            f"flops: {flops:.3g} a rank and step predicted, {flops / run.seconds:.3g} a second "
            "measured"
        )
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> None:
    """Train on moving digits, on local processes or on the ranks that torchrun has started."""
    given = _parser().parse_args(arguments)
    under_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    options = {"checkpoint_dir": given.checkpoints, "checkpoint_every": given.every}
    try:
        task = _task(given)
        options["mesh"] = _mesh(given.mesh)
        options["on_step"] = _Printed(task.steps)
        if under_torchrun:
            run = torchrun_train(task, given.strategy, **options)
        else:
            run = train(task, given.strategy, given.p, threads=given.threads, **options)
    except ValueError as error:
        _parser().error(str(error))
    if run is not None:
        print(summary(run))


class _Printed:
    """Print the loss now and then."""

    def __init__(self, steps: int):
        self.every = -(-steps // LINES)

    def __call__(self, step: int, loss: float) -> None:
        if step % self.every == 0 or step == 1:
            print(f"step {step}: loss {loss:.4f}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workbench.train", description=main.__doc__)
    parser.add_argument("--strategy", choices=[*STRATEGIES, *MESHED], default="dsp")
    parser.add_argument("--mesh", action="append", default=[], metavar="AXIS=RANKS",
                        help="ranks along an axis; once for each, the outermost first")  # fmt: skip
    parser.add_argument("--p", type=int, default=4, help="ranks; under torchrun it decides")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--lr", type=float, default=TrainTask.lr)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adamw")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--patch", type=int, default=4, help="pixels along a patch's edge")
    for name, words in {
        "time": "frames", "space": "patches of a frame", "width": "d_model",
        "heads": "of attention", "layers": "of the transformer", "batch": "clips in a step",
    }.items():  # fmt: skip
        parser.add_argument(f"--{name}", type=int, help=f"{words}, other than usual")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of a local rank")
    parser.add_argument("--checkpoints", help="folder to go on from, and to leave checkpoints in")
    parser.add_argument("--every", type=int, default=50, help="steps between two checkpoints")
    return parser


def _mesh(given: list[str]) -> dict[str, int] | None:
    axes = dict(axis.partition("=")[::2] for axis in given)
    if not all(ranks.isdigit() for ranks in axes.values()):
        raise ValueError(f"--mesh wants AXIS=RANKS, such as ulysses=2; got {' '.join(given)}")
    return {axis: int(ranks) for axis, ranks in axes.items()} or None


def _task(given: argparse.Namespace) -> TrainTask:
    sizes = {name: getattr(given, name) for name in DIGITS.dims}
    dims = {name: DIGITS.dims[name] if size is None else size for name, size in sizes.items()}
    named = {"d_model": given.width, "num_heads": given.heads, "num_layers": given.layers}
    changes = {k: v for k, v in {**named, "batch": given.batch}.items() if v is not None}
    return TrainTask(
        spec=replace(DIGITS, dims=dims, **changes), steps=given.steps, lr=given.lr,
        optimizer=given.optimizer, patch=given.patch, seed=given.seed, dtype=given.dtype,
    )  # fmt: skip


if __name__ == "__main__":
    main()
