"""Commands: ``prepare`` makes the embedded models ready to load, ``plan`` ranks ways to run one."""

import argparse
import json
import sys
import time

from workbench.units import human_bytes, human_seconds


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m workbench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare", help="make the embedded models ready to load")
    prepare.add_argument("--cache", help="their folder; default: $WORKBENCH_CACHE, or the user's")
    _add_plan(commands)
    options = parser.parse_args(arguments)
    if options.command == "plan":
        try:
            print(_plan(options))
        except ValueError as error:
            parser.error(str(error))
        return 0
    started = time.perf_counter()
    try:
        _prepare(options.cache)
    except ImportError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"all models are ready ({human_seconds(time.perf_counter() - started)})")
    return 0


def _prepare(cache: str | None) -> None:
    from workbench.federated import prepare

    prepare(cache, lambda line: print(line, flush=True))


def _add_plan(commands) -> None:
    from workbench.cluster import CLUSTERS
    from workbench.transformer import PRESETS

    command = commands.add_parser("plan", help="rank the ways to run a model on a cluster")
    command.add_argument("--preset", choices=PRESETS, default="stdit-xl-2", help="the model")
    command.add_argument("--cluster", choices=CLUSTERS, default="dgx-h100")
    command.add_argument("--gpus", type=int, required=True, help="devices to use")
    command.add_argument("--batch", type=int, help="samples in a step; default: the preset's")
    command.add_argument("--mode", choices=("train", "inference"), default="train")
    command.add_argument("--objective", choices=("seconds", "memory_bytes"), default="seconds")
    command.add_argument("--top", type=int, default=10, help="rows of the table; 0 for all")
    command.add_argument("--json", action="store_true", help="all rows, for programs")


def _plan(options: argparse.Namespace) -> str:
    from dataclasses import replace

    from workbench.cluster import CLUSTERS
    from workbench.planner import plan
    from workbench.transformer import PRESETS

    spec = PRESETS[options.preset]
    if options.batch is not None:
        spec = replace(spec, batch=options.batch)
    chosen = {"objective": options.objective, "mode": options.mode}
    plans = plan(spec, CLUSTERS[options.cluster], p=options.gpus, **chosen)
    if options.json:
        return json.dumps([q.as_dict() for q in plans], indent=1)
    if options.top < 0:
        raise ValueError(f"--top is a number of rows, or 0 for all; got {options.top}")
    shown = plans[: options.top] if options.top else plans
    title = f"{options.preset} on {options.gpus} of {options.cluster}, {options.mode}"
    reasons: dict[str, list[str]] = {}  # equal ones stand once
    for q in (q for q in plans if not q.fits):
        reasons.setdefault(q.reason.split(". Strategies")[0], []).append(f"{q.strategy} {q.ranks}")
    refused = [f"- {', '.join(dict.fromkeys(who))}: {why}" for why, who in reasons.items()]
    heading = ["What does not fit, and why:"] if refused else []
    return "\n".join([_table(title, [q for q in shown if q.fits]), *heading, *refused])


_WIDE = 160
_HEADINGS = (
    "strategy", "ranks", "checkpoint", "FSDP", "micro-batches", "a step", "memory", "bound by",
)  # fmt: skip


def _table(title: str, plans) -> str:
    """Write the plans as a table: rich's, where it is installed."""
    rows = [
        (q.strategy, q.ranks, q.checkpoint, str(q.fsdp), str(q.accumulate),
         human_seconds(q.seconds), human_bytes(q.memory_bytes), q.binds)
        for q in plans
    ]  # fmt: skip
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        return "\n".join([title, *("\t".join(row) for row in (_HEADINGS, *rows))])
    table = Table(*_HEADINGS, title=title)
    for row in rows:
        table.add_row(*row)
    # A pipe or a file has no width: there no word may be cut.
    console = Console() if sys.stdout.isatty() else Console(width=_WIDE)
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip()


if __name__ == "__main__":
    sys.exit(main())
