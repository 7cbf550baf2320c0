"""`vlmpack score`: a reward for every response of every row."""

import argparse
from collections.abc import Callable

from vlmpack.commands.judged_file import add_files, run_over


def add(add_command: Callable[..., argparse.ArgumentParser]) -> None:
    """Tell the parser of this command.

    Args:
        add_command: adds one by name.
    """
    add_files(
        add_command(
            "score",
            help="a reward for every response of every row",
            description="Score the responses of rows with a reward model, each row's prompt and images encoded once. "
            "Writes every row, in order, with its `rewards` beside its own columns; a row that cannot be scored says "
            "why in `error`. A run that was killed goes on where it was when the same command is given again.",
            epilog="example: vlmpack score rows.jsonl --model reward -o scored.jsonl",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
    )


def run(args: argparse.Namespace) -> int:
    """Score the rows.

    Args:
        args: as parsed.

    Returns:
        The exit status, 0.
    """
    return run_over(args, "scoring", lambda row, rewards: {})
