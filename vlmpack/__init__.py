"""Preference training on vision-language models, encoding each prompt and its images once.

`import vlmpack` needs torch only; names that need transformers are imported when first used.
"""

from importlib import import_module

from vlmpack import losses, unpacked
from vlmpack.forest import Forest, ForestError
from vlmpack.image import ImageInputs
from vlmpack.lengths import Lengths
from vlmpack.pack import Pack
from vlmpack.packing import PackingError, pack
from vlmpack.plan import AttentionError
from vlmpack.sample import Sample, SampleError
from vlmpack.scores import response_logps
from vlmpack.support import UnsupportedModelError

_NEEDS_TRANSFORMERS = {
    "DPOConfig": "vlmpack.training.config",
    "DPOTrainer": "vlmpack.training.dpo_trainer",
    "RewardConfig": "vlmpack.training.config",
    "RewardTrainer": "vlmpack.training.reward_trainer",
    "enable": "vlmpack.model",
    "RewardModel": "vlmpack.reward_model",
    "RewardModelConfig": "vlmpack.reward_model",
    "verify": "vlmpack.proof.verify",
}
_PARTS = ("inspect",)  # modules that are imported when first used

__all__ = [
    "AttentionError",
    "Forest",
    "ForestError",
    "ImageInputs",
    "Lengths",
    "Pack",
    "PackingError",
    "Sample",
    "SampleError",
    "UnsupportedModelError",
    "losses",
    "pack",
    "response_logps",
    "unpacked",
    *_NEEDS_TRANSFORMERS,
    *_PARTS,
]


def __getattr__(name: str):
    if name in _PARTS:
        return import_module(f"vlmpack.{name}")
    if name not in _NEEDS_TRANSFORMERS:
        raise AttributeError(f"module 'vlmpack' has no attribute {name!r}")
    return getattr(import_module(_NEEDS_TRANSFORMERS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
