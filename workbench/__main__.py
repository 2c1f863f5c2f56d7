"""Commands: ``python -m workbench prepare`` makes the embedded models ready to load."""

import argparse
import sys
import time

from workbench.units import human_seconds


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m workbench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare", help="make the embedded models ready to load")
    prepare.add_argument("--cache", help="their folder; default: $WORKBENCH_CACHE, or the user's")
    options = parser.parse_args(arguments)
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


if __name__ == "__main__":
    sys.exit(main())
