"""The reward model that a command asks, and the rows that it is asked about, in their order."""

import argparse
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmpack.commands.dataset import CommandError

DTYPES = ("auto", "float32", "bfloat16", "float16")


def add_scorer(parser: argparse.ArgumentParser) -> None:
    """Tell a parser how a reward model is named, and how it computes.

    Args:
        parser: of a command.
    """
    add = parser.add_argument
    add("--model", required=True, help="folder or hub name of a reward model, or of an adapter of one")
    add("--tokenizer", help="folder or hub id of a processor or tokenizer; without it the model's own")
    add("--image-root", help="folder of the images, none outside it is opened; without it the data's own")
    add("--ignore", nargs="*", default=[], metavar="COLUMN", help="columns of which nothing is to be read")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto: a GPU if there is one")
    add("--dtype", default="auto", choices=DTYPES, help="of the weights; auto: as they were saved")
    add("--attention", default="auto", help="attention backend: auto, dense, paths, flex or varlen")
    add("--max-tokens", type=int, default=8192, help="tokens in one pack, as many as fit into memory")
    add("--max-length", type=int, help="tokens of prompt + response; longer responses are cut at the end")
    add("--workers", type=int, default=0, help="processes that read rows and images")
    add("--quiet", action="store_true", help="show no progress bar")


@dataclass(frozen=True)
class Scorer:
    """A reward model at work.

    Attributes:
        model: on its device.
        processor: the `PreferenceProcessor` that reads rows.
        max_tokens: of a pack.
        max_length: tokens of prompt + response, or None.
        workers: processes that read rows.
        quiet: show no progress bar.
    """

    model: Any
    processor: Any
    max_tokens: int
    max_length: int | None = None
    workers: int = 0
    quiet: bool = False

    def scored(self, rows: Iterable[Mapping], total: int | None = None) -> Iterator[Any]:
        """Score rows, under a progress bar; one that cannot be scored is told so and takes no other with it.

        Args:
            rows: a list, a data set, or anything that gives rows.
            total: how many there are, if it does not say so itself.

        Returns:
            A `vlmpack.scored.Scored` for each row, in order; rewards are not normalised.
        """
        from tqdm.auto import tqdm

        total = len(rows) if total is None and hasattr(rows, "__len__") else total
        with tqdm(desc="scoring", unit="row", total=total, disable=self.quiet) as bar:
            for window in self.windows(rows):
                bar.update(len(window))
                yield from window

    def windows(self, rows: Iterable[Mapping], first: int = 0) -> Iterator[tuple[Any, ...]]:
        """Score rows a window at a time, which is how they are computed.

        Args:
            rows: as for `scored`.
            first: the place of the first of them.
        """
        from vlmpack.candidates import Preparation
        from vlmpack.commands.prepared import prepared
        from vlmpack.model import unwrapped
        from vlmpack.scoring import judged
        from vlmpack.support import longest_path

        longest = longest_path(unwrapped(self.model))
        prepare = Preparation(self.processor.candidates, self.max_tokens, self.max_length, longest)
        for window in prepared(rows, prepare, self.workers, first):
            yield judged(self.model, window)


def scorer_of(args: argparse.Namespace) -> Scorer:
    """Load the reward model and what reads its rows.

    Args:
        args: with what `add_scorer` adds.

    Raises:
        CommandError: a setting cannot be, or the model or its processor is not there.
    """
    for name in ("max_tokens", "max_length"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise CommandError(f"--{name.replace('_', '-')} {value} holds nothing; give 1 or more")
    import torch

    from vlmpack import enable
    from vlmpack.plan import BACKENDS

    if args.attention not in BACKENDS:
        raise CommandError(f"--attention {args.attention} is none of {', '.join(BACKENDS)}")
    device = args.device if args.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    with _explained(args.model):
        _demand_head(args.model)  # and it is a model at all, before anything is read
    processor = _processor(args)
    with _explained(args.model):
        model = _model(args)
    try:
        model = model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise CommandError(f"--device {device} cannot be used: {error}") from error
    enable(model, args.attention)
    return Scorer(model.eval(), processor, args.max_tokens, args.max_length, args.workers, args.quiet)


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """Say in our own words that a model is not there; what is wrong with one says so itself."""
    try:
        yield
    except (OSError, ValueError) as error:
        if type(error).__module__.startswith("vlmpack"):
            raise
        raise CommandError(f"the reward model {path} cannot be loaded: {error}") from error


def _demand_head(path: str) -> None:
    from vlmpack.reward_folder import adapter_in, config_in

    if adapter_in(path, {}) is None and config_in(path, {}) is None:
        raise CommandError(f"{path} is no reward model: its head would be random; train one first")


def _model(args: argparse.Namespace) -> Any:
    import torch
    from transformers import logging

    from vlmpack import RewardModel

    logging.disable_progress_bar()
    dtype = args.dtype if args.dtype == "auto" else getattr(torch, args.dtype)
    return RewardModel.from_pretrained(args.model, dtype=dtype)


def _processor(args: argparse.Namespace) -> Any:
    from vlmpack.processors import PreferenceProcessor, PreferenceProcessorConfig

    known = PreferenceProcessorConfig().metadata_columns
    config = PreferenceProcessorConfig(image_root=_image_root(args), metadata_columns=(*known, *args.ignore))
    path = args.tokenizer or args.model
    try:
        return PreferenceProcessor.from_pretrained(path, config)
    except (OSError, ValueError) as error:
        raise CommandError(f"{path} has no processor or tokenizer; name one with --tokenizer\n{error}") from error


def _image_root(args: argparse.Namespace) -> Path | None:
    if args.image_root is not None:
        return Path(args.image_root)
    path = Path(args.dataset) if args.dataset else None
    return None if path is None or not path.exists() else path if path.is_dir() else path.parent
