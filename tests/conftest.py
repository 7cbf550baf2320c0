"""Shapes in signatures are checked while testing; nothing reaches the network."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

from pathlib import Path

from jaxtyping import install_import_hook

ROOT = Path(__file__).parent.parent
CHECKED = [
    f"vlmpack.{path.stem}" for path in (ROOT / "vlmpack").glob("*.py") if path.stem not in ("__init__", "config")
]
CHECKED += [
    f"vlmpack.processors.{path.stem}" for path in (ROOT / "processors").glob("*.py")
]  # config: transformers' own
install_import_hook(CHECKED, "typecheck.check")

import torch  # noqa: E402

torch.use_deterministic_algorithms(True)
