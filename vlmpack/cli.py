"""The `vlmpack` command.

It stands above all else: the one file of the package that knows the processors, for a plan begins with rows as users
have them.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from vlmpack.lengths import LengthTable
from vlmpack.preferences import PAIRINGS


class CommandError(ValueError):
    """A command cannot be run as it was given."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 if all is well, 1 if a model is not exact, 2 if not run."""
    parser = argparse.ArgumentParser(prog="vlmpack", description="Preference training with shared prompts and images.")
    add_command = parser.add_subparsers(dest="command", required=True, metavar="COMMAND").add_parser
    _add_verify(add_command)
    _add_plan(add_command)
    args = parser.parse_args(arguments)
    try:
        return {"verify": _verify, "plan": _plan}[args.command](args)
    except ValueError as error:
        if not type(error).__module__.startswith("vlmpack"):
            raise
        print(f"vlmpack: {error}", file=sys.stderr)
        return 2


def _add_verify(add_command: Callable[..., argparse.ArgumentParser]) -> None:
    verify = add_command(
        "verify",
        help="is packing exact on this model?",
        description="Hold the packed computation of a model against the unpacked one: log-probabilities, every "
        "parameter's gradient, siblings, images. Builds a small model of the same architecture with random weights, in "
        "float64, and needs no knowledge of the family. Exits 0 if packing is exact, 1 if not.",
        epilog="example: vlmpack verify llava-hf/llava-1.5-7b-hf",
    )
    verify.add_argument("model", metavar="MODEL", help="hub id, folder, or config.json; weights are not needed")
    verify.add_argument("--full", action="store_true", help="take the real weights instead of a miniature (float64)")
    verify.add_argument("--seed", type=int, default=0, help="of random weights and made-up rows")


def _add_plan(add_command: Callable[..., argparse.ArgumentParser]) -> None:
    plan = add_command(
        "plan",
        help="what will a training cost, and what makes it cheaper?",
        description="Foretell an epoch from the lengths of a data set's rows, for several ways of computing it: "
        "tokens, padding, images through the vision tower, FLOPs, packs and the largest of them. Reads the model's "
        "configuration and its processor, no weights; decodes no picture; trains nothing.",
        epilog="example: vlmpack plan preferences.jsonl --model llava-hf/llava-1.5-7b-hf",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = plan.add_argument
    add("dataset", metavar="DATASET", help="JSON, JSONL or Parquet file, folder, saved dataset or hub name")
    add("--model", help="hub id, folder, or config.json; without it only tokens are counted, by --tokenizer")
    add("--tokenizer", help="folder or hub id of a processor or tokenizer; without it the model's own")
    add("--batch-size", type=int, default=32, help="prompts of an optimizer step, with all their responses")
    add("--max-tokens", type=int, default=8192, help="tokens in one pack, as many as fit into memory")
    add("--max-length", type=int, help="tokens of prompt + response; longer responses are cut at the end")
    add("--pairing", default="all", choices=PAIRINGS, help="which pairs of responses are compared")
    add("--image-root", help="folder of the images, none outside it is opened; without it the data set's own")
    add("--split", default="train", help="split of a hub dataset")
    add("--limit", type=int, metavar="ROWS", help="look at the first so many rows alone")
    add("--max-bad-rows", type=float, default=0.01, help="share of unreadable rows that is left out; more is an error")
    add("--workers", type=int, default=0, help="processes that read rows")
    add("--seed", type=int, default=42, help="of the order of rows")


def _verify(args: argparse.Namespace) -> int:
    what = "the real weights" if args.full else "a small model of the same architecture"
    print(f"vlmpack: verifying {args.model} on {what}, packed against unpacked", flush=True)
    start = time.perf_counter()
    from vlmpack.proof.verify import verify  # after the first line is printed: transformers takes a while to import

    report = verify(args.model, full=args.full, seed=args.seed)
    print(report)
    print(f"({time.perf_counter() - start:.0f} s)")
    return 0 if report.exact else 1


def _plan(args: argparse.Namespace) -> int:
    _check(args)
    print(
        f"vlmpack: planning an epoch of {args.model or 'any model'} on {args.dataset}, {args.batch_size} prompts a "
        f"step, packs of at most {args.max_tokens:,} tokens; nothing is trained",
        flush=True,
    )
    from vlmpack.costs.cells import CELLS  # these take a while to import too
    from vlmpack.costs.forecast import forecast
    from vlmpack.costs.forecast_table import advice, forecast_table, remarks
    from vlmpack.costs.saving import Cost, cost_of
    from vlmpack.costs.skeleton import skeleton

    cost = cost_of(skeleton(args.model)) if args.model else Cost(token=1.0, pair=0.0)
    table = _lengths(args)
    found = [forecast(table, cost, cell, args.batch_size, args.max_tokens, args.seed) for cell in CELLS]
    print(forecast_table(found))
    for remark in remarks(found, table, cost, args.max_tokens):
        print(remark)
    given = {"per_device_train_batch_size": args.batch_size, "max_tokens": args.max_tokens}
    given |= {"max_length": args.max_length} if args.max_length else {}
    given |= {"pairing": args.pairing} if args.pairing != "all" else {}
    print(advice(found, args.max_tokens, given))
    return 0


def _check(args: argparse.Namespace) -> None:
    if not (args.model or args.tokenizer):
        raise CommandError("tokens cannot be counted without a tokenizer; give --model, or --tokenizer")
    for name in ("batch_size", "max_tokens", "max_length", "limit"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise CommandError(f"--{name.replace('_', '-')} {value} leaves nothing to plan; give 1 or more")


def _lengths(args: argparse.Namespace) -> LengthTable:
    """What the rows cost, as training would measure them."""
    from vlmpack.costs.survey import survey
    from vlmpack.processors import PreferenceProcessor, PreferenceProcessorConfig, load_rows

    path = args.tokenizer or (str(Path(args.model).parent) if Path(args.model).is_file() else args.model)
    try:
        processor = PreferenceProcessor.from_pretrained(path, PreferenceProcessorConfig(image_root=_image_root(args)))
    except OSError as error:
        raise CommandError(f"{path} has no processor or tokenizer; name one with --tokenizer\n{error}") from error
    rows = load_rows(args.dataset, args.split)
    surveyed = survey(
        rows if args.limit is None else rows.select(range(min(args.limit, len(rows)))),
        processor.measure,
        name="training",
        max_length=args.max_length,
        max_tokens=args.max_tokens,
        max_bad_rows=args.max_bad_rows,
        pairing=args.pairing,
        workers=args.workers,
    )
    for note in surveyed.notes:
        print(f"vlmpack: {note}")
    return surveyed.lengths


def _image_root(args: argparse.Namespace) -> Path | None:
    if args.image_root is not None:
        return Path(args.image_root)
    path = Path(args.dataset)
    return None if not path.exists() else path if path.is_dir() else path.parent


if __name__ == "__main__":
    sys.exit(main())
