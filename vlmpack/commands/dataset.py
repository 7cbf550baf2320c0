"""The data set that a command is about, and the processor that reads its rows."""

import argparse
from pathlib import Path
from typing import Any


class CommandError(ValueError):
    """A command cannot be run as it was given."""


def add_dataset(parser: argparse.ArgumentParser, without_model: str) -> None:
    """Tell a parser how a data set and what reads it are named.

    Args:
        parser: of a command.
        without_model: what happens if no model is named.
    """
    add = parser.add_argument
    add("dataset", metavar="DATASET", help="JSON, JSONL or Parquet file, folder, saved dataset or hub name")
    add("--model", help=f"hub id, folder, or config.json; {without_model}")
    add("--tokenizer", help="folder or hub id of a processor or tokenizer; without it the model's own")
    add("--image-root", help="folder of the images, none outside it is opened; without it the data set's own")
    add("--split", default="train", help="split of a hub dataset")


def processor_of(args: argparse.Namespace) -> Any:
    """The `PreferenceProcessor` that reads the rows.

    Args:
        args: with what `add_dataset` adds.

    Raises:
        CommandError: neither model nor tokenizer is given, or it has no processor.
    """
    from vlmpack.processors import PreferenceProcessor, PreferenceProcessorConfig

    if not (args.model or args.tokenizer):
        raise CommandError("rows cannot be read without a tokenizer; give --model, or --tokenizer")
    path = args.tokenizer or (str(Path(args.model).parent) if Path(args.model).is_file() else args.model)
    try:
        return PreferenceProcessor.from_pretrained(path, PreferenceProcessorConfig(image_root=_image_root(args)))
    except OSError as error:
        raise CommandError(f"{path} has no processor or tokenizer; name one with --tokenizer\n{error}") from error


def rows_of(args: argparse.Namespace) -> Any:
    """The data set's rows, map-style.

    Args:
        args: with what `add_dataset` adds.
    """
    from vlmpack.processors import load_rows

    return load_rows(args.dataset, args.split)


def _image_root(args: argparse.Namespace) -> Path | None:
    if args.image_root is not None:
        return Path(args.image_root)
    path = Path(args.dataset)
    return None if not path.exists() else path if path.is_dir() else path.parent
