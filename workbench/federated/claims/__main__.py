"""Measure the survey's claims, or print what was measured."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from workbench.federated.claims import CLAIMS, RESULTS, Claim, run, survey, to_frame


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        claims = chosen(options.ids)
        if options.results.exists() and not options.results.is_dir():
            raise ValueError(f"--results {options.results} is a file; give a folder, new or not.")
        if options.command == "run":
            run(claims, options.seeds, options.results)
        found = to_frame(survey(CLAIMS, options.results))  # Holm's correction is over all of them
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on after the last seed", file=sys.stderr)
        return 130
    asked = found[found["claim"].isin([claim.id for claim in claims])]
    print(asked.to_string(index=False, float_format="{:.3g}".format))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workbench.federated.claims")
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS, help="folder of records")
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="measure what is missing or stale, seed by seed")
    running.add_argument("--seeds", type=int, nargs="+", help="default: each claim's own")
    for each in (running, commands.add_parser("show", help="print the table")):
        each.add_argument("ids", nargs="*", help="claims; default: all")
    return parser


def chosen(ids: Sequence[str]) -> list[Claim]:
    """The claims of these ids, all if there is none.

    Raises
    ------
    ValueError
        For an unknown id.
    """
    known = {claim.id: claim for claim in CLAIMS}
    if unknown := [each for each in ids if each not in known]:
        raise ValueError(f"no claim {', '.join(unknown)}; there are {', '.join(known)}.")
    return [known[each] for each in ids] or list(CLAIMS)


if __name__ == "__main__":
    raise SystemExit(main())
