"""`vlmpack plan`: what will a training cost, and what makes it cheaper?"""

import argparse
from collections.abc import Callable

from vlmpack.commands.dataset import CommandError, add_dataset, processor_of, rows_of
from vlmpack.lengths import LengthTable
from vlmpack.preferences import PAIRINGS


def add(add_command: Callable[..., argparse.ArgumentParser]) -> None:
    """Tell the parser of this command.

    Args:
        add_command: adds one by name.
    """
    plan = add_command(
        "plan",
        help="what will a training cost, and what makes it cheaper?",
        description="Foretell an epoch from the lengths of a data set's rows, for several ways of computing it: "
        "tokens, padding, images through the vision tower, FLOPs, packs and the largest of them. Reads the model's "
        "configuration and its processor, no weights; decodes no picture; trains nothing.",
        epilog="example: vlmpack plan preferences.jsonl --model llava-hf/llava-1.5-7b-hf",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_dataset(plan, without_model="without it only tokens are counted, by --tokenizer")
    add = plan.add_argument
    add("--batch-size", type=int, default=32, help="prompts of an optimizer step, with all their responses")
    add("--max-tokens", type=int, default=8192, help="tokens in one pack, as many as fit into memory")
    add("--max-length", type=int, help="tokens of prompt + response; longer responses are cut at the end")
    add("--pairing", default="all", choices=PAIRINGS, help="which pairs of responses are compared")
    add("--limit", type=int, metavar="ROWS", help="look at the first so many rows alone")
    add("--max-bad-rows", type=float, default=0.01, help="share of unreadable rows that is left out; more is an error")
    add("--workers", type=int, default=0, help="processes that read rows")
    add("--seed", type=int, default=42, help="of the order of rows")


def run(args: argparse.Namespace) -> int:
    """Foretell and print the table.

    Args:
        args: as parsed.

    Returns:
        The exit status, 0.

    Raises:
        CommandError: settings that leave nothing to plan.
    """
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

    processor, rows = processor_of(args), rows_of(args)
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
