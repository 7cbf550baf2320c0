"""The rows that peers are compared on: real ones where there is a file of them, else made up to their lengths."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))

import made_up
import small_models
import trl_step
from transformers import PreTrainedTokenizerBase

from vlmpack import Sample
from vlmpack.preferences import compared

_EACH = {5: "best against rest", 2: "one pair a prompt"}


@dataclass(frozen=True)
class Case:
    """Rows of one optimizer step, and what computes them.

    Attributes:
        name: for tables.
        model, reference: not enabled yet; the reference has weights of its own, so that the loss depends on all.
        samples: the rows as vlmpack takes them, with only the pairs that are compared.
        processing_class: of TRL.
        pairs: makes the rows as TRL takes them, one a pair; None if there are none, as for made-up pictures.
        read: makes the samples again from their rows, to be timed; None if they are made up.
    """

    name: str
    model: nn.Module
    reference: nn.Module
    samples: Sequence[Sample]
    processing_class: Any
    pairs: Callable[[], list[dict]] | None
    read: Callable[[], list[Sample]] | None = None


def cases(args: argparse.Namespace) -> Iterator[Case]:
    """The data that were asked for, each with a model."""
    tokenizer = _tokenizer(args)
    for responses in (5, 2):
        if "llava" in args.data:
            yield _on_pictures(args, tokenizer, responses)
    if "text" in args.data:
        yield _texts(args, tokenizer, f"HH-RLHF, K=2, {_EACH[2]}", _harmless(args, tokenizer))
        made = made_up.texts(args.rows, args.seed, prompt=300, response=130, pairs=made_up.BEST_AGAINST_REST)
        yield _texts(args, tokenizer, f"made-up text, K=5, {_EACH[5]}", made)


def _tokenizer(args: argparse.Namespace) -> PreTrainedTokenizerBase:
    """The one named, or one of 8,000 words of the data, so that the head weighs little, as a large model's does."""
    if args.tokenizer:
        return small_models.load_tokenizer(args.tokenizer)
    return tokenizer_of([path for path in (args.llava_bench, args.harmless) if path])


def tokenizer_of(paths: Sequence[str]) -> PreTrainedTokenizerBase:
    """A tokenizer of words in files, with at least as many ids as made-up samples use."""
    texts = [" ".join(f"{number:04}" for number in range(made_up.VOCABULARY))]
    for path in paths:
        from inputs import strings

        from vlmpack.processors import load_rows

        texts += [text for row in load_rows(path) for text in strings(row)]
    tokenizer = small_models.train_tokenizer(texts)
    if len(tokenizer) < made_up.VOCABULARY:
        tokenizer.add_tokens([f"word{number}" for number in range(made_up.VOCABULARY - len(tokenizer))])
    return tokenizer


def _on_pictures(args: argparse.Namespace, tokenizer: PreTrainedTokenizerBase, responses: int) -> Case:
    """Real rows if there is a file of them, else pictures of noise."""
    models = [small_models.llava(tokenizer, hidden=args.hidden, layers=args.layers) for _ in range(2)]
    (model, processor), (reference, _) = models
    if args.llava_bench is None:
        token = tokenizer.convert_tokens_to_ids("<image>")
        pairs = made_up.BEST_AGAINST_REST if responses == 5 else ((0, 1),)
        made = made_up.on_pictures(args.rows, args.seed, image_token=token, question=20, response=130, pairs=pairs)
        return Case(f"made-up LLaVA rows, K={responses}, {_EACH[responses]}", model, reference, made, processor, None)
    from vlmpack.processors import PreferenceProcessor, PreferenceProcessorConfig, load_rows
    from vlmpack.processors.images import open_image

    root = Path(args.llava_bench).parent
    reader = PreferenceProcessor(processor, PreferenceProcessorConfig(image_root=root))
    rows = [row if responses == 5 else _two(row) for row in load_rows(args.llava_bench)]
    rows = [row for row in rows if len(set(row["scores"])) > 1][: args.rows]

    def read() -> list[Sample]:
        return [compared(reader(row), "best") for row in rows]

    def pairs() -> list[dict]:  # a row a pair: its picture is opened as often
        words = trl_step.pairs_in_words(rows, samples)
        return [{**row, "images": [open_image(each, root) for each in row["images"]]} for row in words]

    samples = read()
    return Case(f"LLaVA-Bench, K={responses}, {_EACH[responses]}", model, reference, samples, processor, pairs, read)


def _two(row: dict) -> dict:
    """The best and the worst response alone."""
    ranked = sorted(zip(row["scores"], row["responses"], strict=True), key=lambda each: -each[0])
    (high, best), (low, worst) = ranked[0], ranked[-1]
    return {**row, "responses": [best, worst], "scores": [high, low], "models": []}


def _harmless(args: argparse.Namespace, tokenizer: PreTrainedTokenizerBase) -> list[Sample]:
    """Real conversations if there is a file of them, else tokens of their lengths."""
    if args.harmless is None:
        return made_up.profile("HH-RLHF", 2 * args.rows, args.seed)
    from vlmpack.processors import PreferenceProcessor, load_rows

    reader, samples = PreferenceProcessor(tokenizer), []
    for row in load_rows(args.harmless):
        try:
            samples.append(reader(row))
        except ValueError:  # a few rows have an empty response
            continue
        if len(samples) == 2 * args.rows:  # they are short
            break
    return samples


def _texts(args, tokenizer: PreTrainedTokenizerBase, name: str, samples: list[Sample]) -> Case:
    model, reference = (small_models.llama(tokenizer, hidden=args.hidden, layers=args.layers)[0] for _ in range(2))
    return Case(name, model, reference, samples, tokenizer, lambda: trl_step.pairs_in_tokens(samples))
