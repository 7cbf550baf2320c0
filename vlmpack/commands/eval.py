"""`vlmpack eval`: how good is a reward model on a benchmark?"""

import argparse
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vlmpack.commands.dataset import CommandError
from vlmpack.commands.scorer import add_scorer, scorer_of
from vlmpack.evaluation import (
    BENCHMARKS,
    Benchmark,
    Evaluation,
    Readable,
    budget_line,
    check_columns,
    evaluate,
    pixel_budget,
)

PACKAGES = ("torch", "transformers", "vlmpack")
SCORING = ("attention", "max_tokens", "max_length", "tokenizer")


def add(add_command: Callable[..., argparse.ArgumentParser]) -> None:
    """Tell the parser of this command.

    Args:
        add_command: adds one by name.
    """
    parser = add_command(
        "eval",
        help="how good is a reward model on a benchmark?",
        description="Score the pairs of a benchmark with a reward model, and count how often the better response gets "
        "the larger reward: a table by group, averages as the benchmark has them, and a JSON file with every row. "
        "A row that cannot be scored is named and in no average. Exits 1 if no row could be scored.",
        epilog="example: vlmpack eval --benchmark vl_rewardbench --model runs/reward",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "dataset",
        metavar="DATASET",
        nargs="?",
        help="local copy of the benchmark: JSON, JSONL or Parquet file, folder or saved dataset; without it the "
        "benchmark's own is loaded from the hub",
    )
    add("--benchmark", default="rows", choices=BENCHMARKS, help="whose rows these are; `rows`: in any row format")
    add("--split", help="split of a hub or saved dataset; without it the one that is evaluated on")
    add("--limit", type=int, metavar="ROWS", help="evaluate on the first so many rows alone")
    add("--output", metavar="FILE", help="JSON file for the results; without it eval_BENCHMARK.json")
    add("--answers", metavar="FILE", help="write the JSONL file that the benchmark's own script reads too")
    add_scorer(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the table and write the results.

    Args:
        args: as parsed.

    Returns:
        The exit status: 0, or 1 if no row could be scored.

    Raises:
        CommandError: there is no data set, or a file cannot be written.
        EvaluationError: the data set is not the benchmark's.
    """
    benchmark = BENCHMARKS[args.benchmark]
    output = Path(args.output or f"eval_{benchmark.name}.json")
    answers = Path(args.answers) if args.answers else None
    _check(args, benchmark, [output, *filter(None, [answers])])
    args = _settled(args, benchmark)
    limit = f", the first {args.limit:,} rows" if args.limit else ""
    print(f"vlmpack: evaluating {args.model} on {benchmark.name}: {_about(args)}{limit}", flush=True)
    rows = _rows(args, benchmark)
    scorer = scorer_of(args)
    budget = pixel_budget(getattr(scorer.processor.processor, "image_processor", None))
    print(budget_line(budget), flush=True)
    found = evaluate(benchmark, rows, scorer.scored(Readable(benchmark, rows), total=len(rows)))
    print(found.table())
    if answers is not None:
        _write_answers(answers, benchmark, rows, found)
    results = {**_circumstances(args, scorer.model, budget), **found.to_dict()}
    _write(output, json.dumps(results, indent=1, ensure_ascii=False))
    print(f"results: {output}")
    return 0 if found.counts["scored"] else 1


def _check(args: argparse.Namespace, benchmark: Benchmark, files: list[Path]) -> None:
    """What would fail after the work is done fails before."""
    if args.limit is not None and args.limit < 1:
        raise CommandError(f"--limit {args.limit} leaves nothing to evaluate; give 1 or more")
    if args.dataset is None and benchmark.hub is None:
        raise CommandError(f"{benchmark.name} has no data set on the hub; name a DATASET: {benchmark.source}")
    if args.dataset is None and benchmark.paths and args.image_root is None:
        raise CommandError(
            f"{benchmark.hub} names image files without holding them; download them from the hub and name their "
            f"folder with --image-root"
        )
    if args.answers and benchmark.answer_of is None:
        known = ", ".join(each.name for each in BENCHMARKS.values() if each.answer_of is not None)
        raise CommandError(f"--answers: {benchmark.name} has no such file; leave it out ({known} has one)")
    for path in files:
        _check_writable(path)
    if len({path.resolve() for path in files}) < len(files):
        raise CommandError(f"--output and --answers both name {files[0]}; name two files")


def _check_writable(path: Path) -> None:
    folder = path.absolute().parent
    if path.is_dir():
        raise CommandError(f"{path} cannot be written: it is a folder")
    if not folder.is_dir():
        raise CommandError(f"{path} cannot be written: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise CommandError(f"{path} cannot be written: nothing may be written into {folder}")


def _settled(args: argparse.Namespace, benchmark: Benchmark) -> argparse.Namespace:
    """The arguments with what the benchmark gives where nothing was said."""
    path = None if args.dataset is None else Path(args.dataset)
    beside = None if path is None or not path.exists() else str(path if path.is_dir() else path.parent)
    return argparse.Namespace(
        **{
            **vars(args),
            "dataset": args.dataset or benchmark.hub,
            "split": args.split or benchmark.split,
            "image_root": args.image_root or beside,
        }
    )


def _split(args: argparse.Namespace) -> str | None:
    """The split that is read; files, and a data set that was saved alone, have none."""
    path = Path(args.dataset)
    return None if path.exists() and not (path / "dataset_dict.json").exists() else args.split


def _about(args: argparse.Namespace) -> str:
    split = _split(args)
    return args.dataset if split is None else f"{args.dataset}, split {split}"


def _rows(args: argparse.Namespace, benchmark: Benchmark) -> Any:
    """The benchmark's rows as it has them; images are decoded by the processor alone."""
    from vlmpack.costs.undecoded import undecoded
    from vlmpack.processors import SourceError, load_rows

    try:
        rows = undecoded(load_rows(args.dataset, args.split))
    except SourceError:
        raise
    except (OSError, ValueError) as error:  # as `datasets` says that a hub, or what is asked of it, is not there
        raise CommandError(f"{_about(args)}, cannot be loaded; name a local copy as DATASET\n{error}") from error
    check_columns(benchmark, rows)
    return rows if args.limit is None else rows.select(range(min(args.limit, len(rows))))


def _circumstances(args: argparse.Namespace, model: Any, budget: dict[str, Any] | None) -> dict[str, Any]:
    """What one must know to compare results."""
    weights = next(model.parameters())
    computed = {"device": str(weights.device), "dtype": str(weights.dtype).removeprefix("torch.")}
    return {
        "model": args.model,
        "dataset": args.dataset,
        "split": _split(args),
        "limit": args.limit,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: _version(name) for name in PACKAGES},
        "scoring": {**computed, **{name: getattr(args, name) for name in SCORING}},
        "pixel_budget": budget,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a folder in which it was not installed
        return None


def _write_answers(path: Path, benchmark: Benchmark, rows: Any, found: Evaluation) -> None:
    """A line for each row that was scored."""
    judged = zip(rows, found.verdicts, strict=True)
    lines = [json.dumps(benchmark.answer_of(raw, verdict)) + "\n" for raw, verdict in judged if not verdict.error]
    _write(path, "".join(lines))
    lost = len(found.not_scored)
    print(f"answers: {path}" + (f"; left out, for they could not be scored: {lost:,}" if lost else ""))


def _write(path: Path, text: str) -> None:
    """Write a file as a whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise CommandError(f"{path} cannot be written: {error}") from error
