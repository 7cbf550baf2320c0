"""Shapes in signatures are checked while testing; nothing reaches the network or a user's caches."""

import atexit
import os
import shutil
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic products on a GPU ask for
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_DATASETS_CACHE"] = CACHE = tempfile.mkdtemp(prefix="vlmpack-tests-")  # a user's own stays clean
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)

from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

ROOT = Path(__file__).parent.parent
FOLDERS = {"vlmpack": ROOT / "vlmpack", "vlmpack.processors": ROOT / "processors"}
UNCHECKED = {"__init__", "config", "double"}  # config: transformers' own; double: every torch call passes through it
CHECKED = [
    ".".join([package, *path.relative_to(folder).with_suffix("").parts])
    for package, folder in FOLDERS.items()
    for path in folder.rglob("*.py")
    if path.stem not in UNCHECKED
]
install_import_hook(CHECKED, "typecheck.check")

import torch  # noqa: E402

torch.use_deterministic_algorithms(True)
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the cores are busy with other tests


def pytest_collection_modifyitems(items):
    """Tests that need a GPU say so where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
