"""The `vlmpack` command. It stands above all else."""

import argparse
import sys
from collections.abc import Sequence

from vlmpack.commands import inspect, plan, verify

COMMANDS = {"verify": verify, "plan": plan, "inspect": inspect}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 if all is well, 1 if a model is not exact, 2 if not run.

    Args:
        arguments: without the command's own name; None for those it was called with.
    """
    parser = argparse.ArgumentParser(prog="vlmpack", description="Preference training with shared prompts and images.")
    add_command = parser.add_subparsers(dest="command", required=True, metavar="COMMAND").add_parser
    for command in COMMANDS.values():
        command.add(add_command)
    args = parser.parse_args(arguments)
    try:
        return COMMANDS[args.command].run(args)
    except ValueError as error:
        if not type(error).__module__.startswith("vlmpack"):
            raise
        print(f"vlmpack: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
