"""Small, randomly initialised models at real settings, for data that no checkpoint is at hand for.

LLaVA-1.5's picture settings (336 px, patches of 14: 576 tokens an image) in front of a Llama of a few million
parameters. They show what packing saves and that training runs; they know nothing.
"""

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoTokenizer,
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from scenes import TEMPLATE

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def llava(tokenizer: PreTrainedTokenizerBase, *, hidden: int = 256, layers: int = 4):
    """A LLaVA-1.5 in small, and its processor.

    Args:
        tokenizer: gains the image token.
        hidden: width of decoder and vision tower.
        layers: of the decoder; the vision tower has half as many.
    """
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    vision = CLIPVisionConfig(**_width(hidden), num_hidden_layers=max(1, layers // 2), image_size=336, patch_size=14)
    config = LlavaConfig(
        vision_config=vision,
        text_config=_text(tokenizer, hidden, layers),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=576,
        vision_feature_layer=-1,
        dtype="float32",
    )
    return LlavaForConditionalGeneration(config), processor


def llama(tokenizer: PreTrainedTokenizerBase, *, hidden: int = 256, layers: int = 4):
    """A Llama in small, and its tokenizer."""
    return LlamaForCausalLM(_text(tokenizer, hidden, layers)), tokenizer


def _width(hidden: int) -> dict[str, int]:
    return {
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_attention_heads": max(1, hidden // 64),
    }


def _text(tokenizer: PreTrainedTokenizerBase, hidden: int, layers: int) -> LlamaConfig:
    return LlamaConfig(
        **_width(hidden),
        num_hidden_layers=layers,
        vocab_size=len(tokenizer),
        max_position_embeddings=4096,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
    )


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """A tokenizer from a folder, a hub name, or a SentencePiece model file; with a chat template."""
    if Path(path).is_file():
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(path, Path(folder) / "tokenizer.model")
            tokenizer = LlamaTokenizer.from_pretrained(folder)
    else:
        tokenizer = AutoTokenizer.from_pretrained(path)
    if tokenizer.pad_token is None:
        tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.chat_template = tokenizer.chat_template or TEMPLATE
    return tokenizer


def train_tokenizer(texts: Iterable[str], *, vocabulary: int = 8000) -> PreTrainedTokenizerBase:
    """A byte-level BPE of the data's own words, where no tokenizer is given."""
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, **SPECIAL, chat_template=TEMPLATE)
