"""`vlmpack inspect`: what do rows look like as a pack, and who sees whom?"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
        CommandError: there is no such row, it cannot be read, or a file cannot be written.
    """
    _check(args)
    from vlmpack import inspect, pack

    rows, processor = rows_of(args), processor_of(args)  # a file that is not there is known sooner than a hub name
    for number in args.row:
        if not 0 <= number < len(rows):
            raise CommandError(f"--row {number}: {args.dataset} has {len(rows):,} rows, 0 to {len(rows) - 1:,}")
    samples = [_sample(processor, rows[number], number) for number in args.row]
    most = sum(len(sample.prompt_ids) + sum(map(len, sample.response_ids)) for sample in samples)
    (whole,) = pack(samples, max_tokens=most)
    print(inspect.text(whole))
    if args.html:
        _write(args.html, "page", lambda path: Path(path).write_text(inspect.page(whole), encoding="utf-8"))
    if args.png:
        _write(args.png, "picture", lambda path: inspect.draw(whole).savefig(path, dpi=150))
    return 0


def _sample(processor: Any, row: Any, number: int) -> Any:
    try:
        return processor(row)
    except ValueError as error:
        raise CommandError(f"--row {number}: {error}") from error


def _write(path: str, what: str, write: Callable[[str], Any]) -> None:
    try:
        write(path)
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error}") from error
    print(f"{what}: {path}")


def _check(args: argparse.Namespace) -> None:
    """What would fail after the work is done fails before."""
    if len(set(args.row)) < len(args.row):
        raise CommandError(f"--row {' '.join(map(str, args.row))} names a row twice; name each once")
    for path in map(Path, filter(None, (args.html, args.png))):
        if path.is_dir() or not path.absolute().parent.is_dir():
            why = "it is a folder" if path.is_dir() else f"there is no folder {path.absolute().parent}"
            raise CommandError(f"{path} cannot be written: {why}")
    if args.png:
        _check_picture(Path(args.png).suffix.removeprefix("."))


def _check_picture(ending: str) -> None:
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as missing:
        raise CommandError("--png needs matplotlib; install it with: pip install 'vlmpack[inspect]'") from missing
    endings = sorted(FigureCanvasBase.get_supported_filetypes())
    if ending not in endings:
        raise CommandError(f"--png cannot write pictures that end in {ending!r}; take one of {', '.join(endings)}")
