"""The flags that the example scripts share, and what they stand for: a model, its processor, and rows."""

import argparse
import sys
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any

import small_models
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    LlavaForConditionalGeneration,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

import scenes
from vlmpack.costs.undecoded import undecoded
from vlmpack.ordering import STRATEGIES
from vlmpack.plan import BACKENDS
from vlmpack.processors import PreferenceProcessor, PreferenceProcessorConfig, load_rows
from vlmpack.sharing import SHARINGS

PARTS = ("vision_tower", "multi_modal_projector", "language_model")
DTYPE = torch.float32  # checkpoints are often float16, in which AdamW cannot train


def flags(description: str, output_dir: str, learning_rate: float, epochs: float) -> argparse.ArgumentParser:
    """Flags with the embedded default's values: generated pictures, a tiny LLaVA from scratch."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--model", help="folder or hub name; without it a small random model is made to fit the data")
    add(
        "--dataset",
        help="JSON, JSONL or Parquet file, folder, saved dataset or hub name; without it scenes are drawn",
    )
    add(
        "--eval-dataset", help="likewise; without it a share of the rows is held out, whose pictures no other row shows"
    )
    add("--held-out", type=float, default=0.1, help="that share")
    add("--split", default="train", help="split of a hub dataset")
    add("--image-root", help="folder of the images, none outside it is opened; without it the --dataset file's own")
    add("--tokenizer", help="tokenizer of a small random model; without it one is trained on the data")
    add("--output-dir", default=output_dir, help="where checkpoints and the model are written")
    add("--max-tokens", type=int, default=8192, help="tokens in one pack, as many as fit into memory")
    add("--max-length", type=int, help="tokens of prompt + response; longer responses are cut at the end")
    add("--attention", default="auto", choices=BACKENDS, help="attention backend")
    add("--verify", action="store_true", help="first prove packing exact on a small model of the same architecture")
    add("--epochs", type=float, default=epochs, help="passes over the data")
    add("--max-steps", type=int, default=-1, help="stop after so many optimizer steps")
    add(
        "--batch-size",
        type=int,
        default=32,
        help="prompts a process takes in an optimizer step, with all their responses",
    )
    add("--learning-rate", type=float, help=f"peak; without it {learning_rate:g}, or with --model the trainer's own")
    add("--pairing", default="all", choices=["all", "best", "adjacent"], help="which pairs of responses are compared")
    add("--prompt-weight", default="pairs", choices=["pairs", "one"], help="a prompt weighs its pairs, or one")
    add("--group-by-image", action="store_true", help="let rows on the same images meet in a batch and share them")
    add("--order", default="random", choices=STRATEGIES, help="of rows; as train_sampling_strategy")
    add("--sharing", default="all", choices=SHARINGS, help="what stands once in a pack; all but the first to compare")
    add("--padding", action="store_true", help="fill trees up to the longest, as a padded batch does; to compare")
    add("--freeze", nargs="*", default=[], choices=PARTS, help="parts of the model that are not trained")
    add("--vision-lr", type=float, help="learning rate of the vision tower, if it is to have its own")
    add("--cache-vision-features", type=float, metavar="GIB", help="host memory for what a frozen vision tower makes")
    add("--lora-rank", type=int, help="train an adapter of this rank instead of the model")
    add("--save-steps", type=float, help="save a checkpoint every so many steps; a share of all steps below 1")
    add("--resume", action="store_true", help="go on from the last whole checkpoint in --output-dir")
    add(
        "--max-bad-rows",
        type=float,
        default=0.01,
        help="share of unreadable rows that is left out; more is an error",
    )
    add("--workers", type=int, default=0, help="processes that read rows")
    add("--seed", type=int, default=0, help="of everything random")
    return parser


def training_arguments(args: argparse.Namespace, from_scratch: float) -> dict[str, Any]:
    """What the flags say in the trainers' own words.

    Args:
        args: the flags.
        from_scratch: learning rate of a small model that knows nothing; a pretrained one takes the trainer's default.
    """
    rate = args.learning_rate if args.learning_rate is not None else None if args.model else from_scratch
    return ({} if rate is None else {"learning_rate": rate}) | {
        "output_dir": args.output_dir,
        "max_tokens": args.max_tokens,
        "max_length": args.max_length,
        "attention": args.attention,
        "verify": args.verify,
        "num_train_epochs": args.epochs,
        "max_steps": args.max_steps,
        "per_device_train_batch_size": args.batch_size,
        "per_device_eval_batch_size": args.batch_size,
        "pairing": args.pairing,
        "prompt_weight": args.prompt_weight,
        "group_by_image": args.group_by_image,
        "train_sampling_strategy": args.order,
        "sharing": args.sharing,
        "padding": args.padding,
        "vision_lr": args.vision_lr,
        "cache_vision_features": args.cache_vision_features,
        "save_strategy": "steps" if args.save_steps else "no",
        "save_steps": args.save_steps or 500,
        "save_total_limit": 2,
        **{f"freeze_{part}": part in args.freeze for part in PARTS},
        "max_bad_rows": args.max_bad_rows,
        "dataloader_num_workers": args.workers,
        "seed": args.seed,
        "report_to": [],
    }


def adapter(args: argparse.Namespace, **settings: Any) -> Any:
    """A LoRA adapter on the decoder's linear layers, if one is asked for."""
    if args.lora_rank is None:
        return None
    from peft import LoraConfig

    decoder = r"(?!.*(vision|visual)).*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    return LoraConfig(r=args.lora_rank, lora_alpha=2 * args.lora_rank, target_modules=decoder, **settings)


def rows(args: argparse.Namespace) -> tuple[Any, Any]:
    """Rows to train on, and rows to judge by that share no picture with them (in the embedded default)."""
    if args.dataset is None:
        return scenes.rows(scenes.TRAINING_IMAGES, seed=args.seed), scenes.rows(100, seed=args.seed + 10_000)
    train = undecoded(load_rows(args.dataset, args.split))
    if args.eval_dataset is not None:
        return train, load_rows(args.eval_dataset, args.split)
    if len(train) < 10:
        return train, None
    groups = split_by_image(train, args.held_out, args.seed)
    return tuple(train.select(group) for group in groups) if all(groups) else (train, None)


def split_by_image(rows: Any, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Rows to train on and rows to judge by, without a picture in common; rows of text are drawn one by one.

    Args:
        rows: a data set.
        share: of the groups of rows on the same pictures that is held out.
        seed: of the draw.
    """
    columns = [name for name in ("images", "image") if name in rows.column_names]
    shown = rows.select_columns(columns) if columns else ({} for _ in range(len(rows)))
    home: dict[str, int] = {}  # for each picture, the first row that shows it
    group = list(range(len(rows)))  # for each row, one that it must stay with

    def leader(place: int) -> int:
        while group[place] != place:
            place = group[place]
        return place

    for place, row in enumerate(shown):
        for picture in pictures_in([row[name] for name in columns]):
            group[leader(place)] = leader(home.setdefault(picture, place))
    together: dict[int, list[int]] = {}
    for place in range(len(rows)):
        together.setdefault(leader(place), []).append(place)
    drawn = list(together.values())
    Random(seed).shuffle(drawn)
    held_out = max(1, round(share * len(drawn)))
    return tuple(sorted(place for each in part for place in each) for part in (drawn[held_out:], drawn[:held_out]))


def pictures_in(value: Any) -> Iterator[str]:
    """Every picture of a row: by its bytes if it has any, else by its path."""
    if isinstance(value, list | tuple):
        for each in value:
            yield from pictures_in(each)
    elif isinstance(value, dict):
        yield from pictures_in(value["bytes"] if value.get("bytes") is not None else value.get("path"))
    elif value:
        yield blake2b(value if isinstance(value, bytes) else str(value).encode(), digest_size=16).hexdigest()


def model_and_processor(args: argparse.Namespace, train: Any) -> tuple[Any, PreferenceProcessor]:
    """The model that the flags name, or a small random one for this data, and the processor that reads rows."""
    config = PreferenceProcessorConfig(image_root=_image_root(args))
    if args.model is not None:
        return load_model(args.model), PreferenceProcessor.from_pretrained(args.model, config)
    if args.dataset is None:
        processor = scenes.processor()
        return LlavaForConditionalGeneration(scenes.llava_config(processor)), PreferenceProcessor(processor, config)
    texts = (text for row in train for text in strings(row))
    tokenizer = small_models.load_tokenizer(args.tokenizer) if args.tokenizer else small_models.train_tokenizer(texts)
    build = small_models.llava if {"images", "image"} & set(train.column_names) else small_models.llama
    model, processor = build(tokenizer)
    return model, PreferenceProcessor(processor, config)


def load_model(path: str):
    """A pretrained policy: vision-language where the family is one, else a causal language model."""
    vision = AutoConfig.from_pretrained(path).model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    return (AutoModelForImageTextToText if vision else AutoModelForCausalLM).from_pretrained(
        path, use_safetensors=True, dtype=DTYPE
    )


def run(main: Callable[[], Any]) -> None:
    """Run a script; what is wrong with the data or the settings is said in its own words, without a traceback."""
    try:
        main()
    except ValueError as error:
        if not type(error).__module__.startswith("vlmpack"):
            raise
        sys.exit(str(error))


def say(trainer: Any, text: str) -> None:
    """Print once, however many processes there are."""
    if trainer.is_world_process_zero():
        print(text, flush=True)


def strings(value: Any) -> Iterator[str]:
    """All text in a row."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)


def _image_root(args: argparse.Namespace) -> Path | None:
    if args.image_root is not None:
        return Path(args.image_root)
    path = Path(args.dataset) if args.dataset else None
    return None if path is None or not path.exists() else path if path.is_dir() else path.parent
