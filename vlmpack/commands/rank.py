"""`vlmpack rank`: the responses of every row from the best to the worst; best-of-N."""

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from vlmpack.commands.dataset import CommandError
from vlmpack.commands.judged_file import add_files, run_over


def add(add_command: Callable[..., argparse.ArgumentParser]) -> None:
    """Tell the parser of this command.

    Args:
        add_command: adds one by name.
    """
    rank = add_command(
        "rank",
        help="the responses of every row from the best to the worst; best-of-N",
        description="Rank the responses of rows by a reward model. Writes every row, in order, with the `ranking` of "
        "its responses (their numbers, the best first), the `best` one itself, and `rewards`. Goes on where it was "
        "killed, as `vlmpack score` does.",
        epilog="example: vlmpack rank candidates.jsonl --model reward -o ranked.jsonl --top 1",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    rank.add_argument("--top", type=int, metavar="N", help="name the best N alone; without it all")
    add_files(rank)


def run(args: argparse.Namespace) -> int:
    """Rank the rows' responses.

    Args:
        args: as parsed.

    Returns:
        The exit status, 0.

    Raises:
        CommandError: `--top` leaves nothing.
    """
    if args.top is not None and args.top < 1:
        raise CommandError(f"--top {args.top} names nothing; give 1 or more")

    def told(row: Mapping[str, Any], rewards: list[float]) -> dict[str, Any]:
        ranking = sorted(range(len(rewards)), key=lambda response: -rewards[response])
        best = {"best": row["responses"][ranking[0]]} if isinstance(row.get("responses"), list) else {}
        return {"ranking": ranking[: args.top], **best}

    return run_over(args, f"ranking{f' (top {args.top})' if args.top else ''}", told)
