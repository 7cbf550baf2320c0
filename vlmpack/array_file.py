"""Arrays in a file that is whole or not there."""

import os
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import numpy as np


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays under a temporary name and then rename the file, so that no reader meets half of it.

    Args:
        path: of the file; its folder is made if it is missing.
        arrays: by name; none of Python objects.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid4().hex}.part")
    try:
        with part.open("wb") as file:
            np.savez(file, **arrays)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file that `save_arrays` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)
