"""What decides about the tokens that a processor makes, in one digest."""

import json
from hashlib import blake2b
from importlib.metadata import version
from typing import Any

from transformers import PreTrainedTokenizerBase, ProcessorMixin

PASSING = ("truncation", "padding")  # set anew by every call of a tokenizer


def identity(processor: ProcessorMixin | PreTrainedTokenizerBase, settings: dict[str, Any]) -> str:
    """A digest of a processor, so that what was measured with one is not taken for another's.

    Args:
        processor: its class, settings, vocabulary and chat template count, and so do versions of code.
        settings: of whoever uses it.

    Returns:
        32 hex digits. What has no value of its own to compare may make them differ from run to run, never agree.
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    image_processor = getattr(processor, "image_processor", None)
    parts = {
        "versions": {name: version(name) for name in ("transformers", "tokenizers", "vlmpack")},
        "classes": [f"{type(part).__module__}.{type(part).__qualname__}" for part in (processor, tokenizer)],
        "processor": processor.to_dict() if isinstance(processor, ProcessorMixin) else None,
        "image_processor": None if image_processor is None else image_processor.to_dict(),
        "templates": [processor.chat_template, tokenizer.chat_template],
        "tokenizer": _tokens(tokenizer),
        "settings": settings,
    }
    return blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


def _tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Everything that decides how a text becomes tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        state = {"vocabulary": tokenizer.get_vocab(), "made with": tokenizer.init_kwargs}
    else:
        state = {name: value for name, value in json.loads(backend.to_str()).items() if name not in PASSING}
    return {"state": state, "special": tokenizer.special_tokens_map, "added": tokenizer.get_added_vocab()}
