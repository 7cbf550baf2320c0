"""Shapes in signatures are checked while testing; nothing reaches the network."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

from jaxtyping import install_import_hook

install_import_hook("vlmpack", "beartype.beartype")

import torch  # noqa: E402

torch.use_deterministic_algorithms(True)
