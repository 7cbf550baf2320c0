"""The `vlmpack` command. It stands above all else."""

import argparse
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches

from vlmpack.commands import eval, inspect, plan, rank, score, verify

COMMANDS = {"score": score, "rank": rank, "eval": eval, "verify": verify, "plan": plan, "inspect": inspect}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 if all is well, 1 if a model is not exact, 2 if not run.

    Args:
        arguments: without the command's own name; None for those it was called with.
    """
    parser = argparse.ArgumentParser(prog="vlmpack", description="Preference training with shared prompts and images.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS.values():
        command.add(commands.add_parser)
    args, unknown = parser.parse_known_args(arguments)
    if unknown:
        commands.choices[args.command].error(_unknown(unknown, commands.choices[args.command]))
    try:
        return COMMANDS[args.command].run(args)
    except ValueError as error:
        if not type(error).__module__.startswith("vlmpack"):
            raise
        print(f"vlmpack: {error}", file=sys.stderr)
        return 2


def _unknown(arguments: Sequence[str], command: argparse.ArgumentParser) -> str:
    """What is said of arguments that a command does not know; its usage stands above it."""
    known = re.findall(r"--[\w-]+", command.format_usage())
    close = [match for each in arguments for match in get_close_matches(each, known, n=1)]
    return f"unknown: {' '.join(arguments)}" + (f"; did you mean {' or '.join(close)}?" if close else "")


if __name__ == "__main__":
    sys.exit(main())
