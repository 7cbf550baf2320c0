"""Rows in, the same rows with rewards out: streaming, in order, resumable, none lost."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlmpack.commands.dataset import CommandError
from vlmpack.commands.resumed_output import ResumedOutput, as_line
from vlmpack.commands.row_lines import BadLine, DataRows, JsonLines, LineReading, rows_from
from vlmpack.commands.scorer import Scorer, add_scorer, scorer_of
from vlmpack.shown import enumerated

SAID = ("rewards", "error", "ranking", "best")  # columns of ours
DECIDING = ("*.safetensors", "*.bin", "*.json", "*.jinja", "*.model")  # files of a model that decide about rewards
SHOWN = 5  # bad rows named at the end; all stand in a file
SETTINGS = (
    *("model", "tokenizer", "image_root", "ignore", "dtype", "attention", "max_length"),
    *("raw", "limit", "split"),
)  # that decide about the lines of the output


def add_files(parser: argparse.ArgumentParser) -> None:
    """Tell a parser how rows and their output are named.

    Args:
        parser: of a command.
    """
    add = parser.add_argument
    add("dataset", metavar="ROWS", help="JSONL file (may be gzipped); or Parquet, JSON, a folder, a hub name")
    add("--output", "-o", required=True, metavar="FILE", help="JSONL; what a killed run left of it is gone on with")
    add("--split", default="train", help="split of a hub dataset")
    add("--limit", type=int, metavar="ROWS", help="the first so many rows alone")
    add("--raw", action="store_true", help="rewards as the model computes them, not normalised")
    add("--overwrite", action="store_true", help="begin the output anew")
    add_scorer(parser)


def run_over(args: argparse.Namespace, what: str, told: Callable[[Mapping[str, Any], list[float]], dict]) -> int:
    """Judge every row and write a line for it.

    Args:
        args: as parsed.
        what: is done to the rows, for the first line that is printed.
        told: what is said of a row and its rewards, beside the row's own columns.

    Returns:
        The exit status, 0.

    Raises:
        CommandError: there are no such rows, no such model, or the output cannot be written.
    """
    from vlmpack.candidates import WINDOW

    rows, path = rows_from(args.dataset, args.split), Path(args.output)
    if path.exists() and Path(args.dataset).exists() and path.samefile(args.dataset):
        raise CommandError(f"{path} holds the rows; name another file for the output")
    total = rows.count() if args.limit is None else min(rows.count(), args.limit)
    output = ResumedOutput(path, _run(args, what), WINDOW, total, args.overwrite)
    try:
        done = f"; {output.lines:,} rows are done already" if output.lines else ""
        say(f"{what} {enumerated({'row': total})} of {args.dataset} by {args.model}{done}")
        start, bad = time.perf_counter(), _bad_in(path)
        _refuse_other_rows(path, rows, output.lines, total)
        if output.lines < total:
            bad += _judge(args, rows, output, total, told)
    finally:
        output.close()
    _report(path, total, bad, time.perf_counter() - start)
    return 0


def say(text: str) -> None:
    """Tell the user, beside what is written.

    Args:
        text: what to say.
    """
    print(f"vlmpack: {text}", file=sys.stderr, flush=True)


def _judge(
    args: argparse.Namespace, rows: JsonLines | DataRows, output: ResumedOutput, total: int, told: Callable
) -> list[dict]:
    """Score what is left, a window at a time; returns what cannot be."""
    from tqdm.auto import tqdm

    scorer, first, bad = scorer_of(args), output.lines, []
    scorer = replace(scorer, processor=LineReading(scorer.processor))
    left = replace(rows, skip=first, stop=total)
    again = iter(left)  # read here a second time, for the output: workers, if there are any, have their own
    with tqdm(desc=args.command, unit="row", initial=first, total=total, disable=args.quiet) as bar:
        for window in scorer.windows(left, first):
            lines = [_line(next(again), each, scorer, args.raw, told) for each in window]
            output.write(lines)
            bad += [{"row": each.place, "error": each.error} for each in window if each.error]
            bar.update(len(window))
    return bad


def _line(row: Any, each: Any, scorer: Scorer, raw: bool, told: Callable) -> dict[str, Any]:
    columns = _columns(row)
    if each.error:
        return {**columns, "rewards": None, "error": each.error}
    rewards = [reward if raw else scorer.model.normalized(reward) for reward in each.rewards]
    return {**columns, "rewards": rewards, **told(row, rewards)}


def _columns(row: Any) -> dict[str, Any]:
    """A row's own columns, without what an earlier run said of it."""
    if isinstance(row, BadLine):
        return {"line": row.text}
    return {name: value for name, value in row.items() if name not in SAID}


def _refuse_other_rows(path: Path, rows: JsonLines | DataRows, done: int, total: int) -> None:
    """What is done already must be of these rows; more may have come after them."""
    if done > total:
        raise CommandError(
            f"{path} holds {done:,} rows, and there are {total:,}; name another file, or give --overwrite"
        )
    with path.open("rb") as file:
        for place, (line, row) in enumerate(zip(file, replace(rows, stop=done), strict=False)):
            if as_line(_columns(json.loads(line))) != as_line(_columns(row)):  # as text, in which NaN is itself
                raise CommandError(
                    f"row {place} is not the one that {path} was written for; name another file, or give --overwrite"
                )


def _run(args: argparse.Namespace, what: str) -> dict[str, Any]:
    """What decides about the lines of the output."""
    files = [file for end in DECIDING for file in Path(args.model).glob(end) if not file.name.endswith(".run.json")]
    weights = {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(files)}
    settings = {name: getattr(args, name) for name in SETTINGS}
    return {"command": what, "rows": str(args.dataset), **settings, "weights": weights}


def _bad_in(path: Path) -> list[dict]:
    """What could not be scored before the run was gone on with."""
    with path.open("rb") as file:
        found = ((place, json.loads(line)) for place, line in enumerate(file) if b'"error": ' in line)
        return [{"row": place, "error": row["error"]} for place, row in found if row.get("rewards") is None]


def _report(path: Path, total: int, bad: list[dict], seconds: float) -> None:
    beside = path.with_name(f"{path.name}.errors.jsonl")
    beside.unlink(missing_ok=True)
    if bad:
        beside.write_text("".join(json.dumps(each) + "\n" for each in bad))
        lines = [f"  row {each['row']}: {each['error']}" for each in bad[:SHOWN]]
        more = [f"  and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else []
        head = f"{len(bad)} of {total:,} rows could not be scored; their lines say why, and so does {beside}:"
        say("\n".join([head, *lines, *more]))
    say(f"{enumerated({'row': total})} in {seconds:.0f} s: {path}")
