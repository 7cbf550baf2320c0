"""`vlmpack inspect`: what do rows look like as a pack, and who sees whom?"""

import argparse
from collections.abc import Callable
from pathlib import Path

from vlmpack.commands.dataset import CommandError, add_dataset, processor_of, rows_of


def add(add_command: Callable[..., argparse.ArgumentParser]) -> None:
    """Tell the parser of this command.

    Args:
        add_command: adds one by name.
    """
    inspect = add_command(
        "inspect",
        help="what do rows look like as a pack, and who sees whom?",
        description="Pack some rows together as training would, and show the result: segments with their texts and "
        "images, which of them see which, what was saved. Reads the model's processor, no weights.",
        epilog="example: vlmpack inspect preferences.jsonl --model llava-hf/llava-1.5-7b-hf --row 0 --html pack.html",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_dataset(inspect, without_model="its processor reads the rows; --tokenizer will do")
    add = inspect.add_argument
    add("--row", type=int, nargs="+", default=[0], metavar="N", help="rows of the data set, from 0; packed together")
    add("--html", metavar="FILE", help="write a page to open in a browser: hover a token, see what it sees")
    add("--png", metavar="FILE", help="write a picture; another ending, .pdf or .svg, writes that")


def run(args: argparse.Namespace) -> int:
    """Show the rows, and write what was asked for.

    Args:
        args: as parsed.

    Returns:
        The exit status, 0.

    Raises:
        CommandError: there is no such row, or a file cannot be written.
    """
    _check(args)
    from vlmpack import inspect, pack

    processor, rows = processor_of(args), rows_of(args)
    for number in args.row:
        if not 0 <= number < len(rows):
            raise CommandError(f"--row {number}: {args.dataset} has {len(rows):,} rows, 0 to {len(rows) - 1:,}")
    samples = [processor(rows[number]) for number in args.row]
    most = sum(len(sample.prompt_ids) + sum(map(len, sample.response_ids)) for sample in samples)
    (whole,) = pack(samples, max_tokens=most)
    print(inspect.text(whole))
    if args.html:
        Path(args.html).write_text(inspect.page(whole), encoding="utf-8")
        print(f"page: {args.html}")
    if args.png:
        inspect.draw(whole).savefig(args.png, dpi=150)
        print(f"picture: {args.png}")
    return 0


def _check(args: argparse.Namespace) -> None:
    """What would fail after the work is done fails before."""
    if len(set(args.row)) < len(args.row):
        raise CommandError(f"--row {' '.join(map(str, args.row))} names a row twice; name each once")
    for path in filter(None, (args.html, args.png)):
        if not Path(path).absolute().parent.is_dir():
            raise CommandError(f"{path} cannot be written: there is no folder {Path(path).absolute().parent}")
