"""What all rows of a data set cost and which cannot be read, kept beside the `datasets` library's own cache."""

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from jaxtyping import Int

from vlmpack.array_file import load_arrays, save_arrays
from vlmpack.lengths import LengthTable

FORMAT = 1  # of the file and of what is measured; raise it when either changes
BAD = "bad"  # the array beside the table's own


@dataclass(frozen=True, eq=False)
class Measured:
    """Every row of a data set, looked at once.

    Attributes:
        lengths: what the rows that can be read cost, in their order, with all pairs and before truncation.
        bad: what is wrong with each of the others, by its place.
    """

    lengths: LengthTable
    bad: dict[int, str]

    @property
    def places(self) -> Int[np.ndarray, " n"]:
        """The places of the rows that can be read."""
        return np.delete(np.arange(len(self.lengths) + len(self.bad)), list(self.bad))

    def save(self, path: Path) -> None:
        """Write it to a file, whole or not at all."""
        text = json.dumps(list(self.bad.items())).encode()
        save_arrays(path, {**self.lengths.columns(), BAD: np.frombuffer(text, dtype=np.uint8)})

    @classmethod
    def load(cls, path: Path) -> "Measured | None":
        """Read what `save` wrote; None if it is not there, or damaged."""
        try:
            columns = load_arrays(path)
            return cls(LengthTable.from_columns(columns), dict(json.loads(columns[BAD].tobytes())))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None


def kept_at(rows: Any, measure: Callable[[Any], Any] | None) -> Path | None:
    """The file in which the lengths of a data set are kept.

    Two things decide about lengths: the rows, which the fingerprint of `datasets` names, and the processor, which has
    a `fingerprint` of its own. A picture that a row names by its path is not part of either: remove the file if such
    pictures change.

    Args:
        rows: a data set.
        measure: a method of a processor.

    Returns:
        None: something else may decide, or the cache of `datasets` is switched off, so nothing is kept.
    """
    key = getattr(getattr(measure, "__self__", None), "fingerprint", None)
    if key is None or not isinstance(rows, datasets.Dataset) or rows.format["type"] == "custom":
        return None
    if not datasets.is_caching_enabled():
        return None
    name = blake2b(json.dumps([FORMAT, rows._fingerprint, key]).encode(), digest_size=16).hexdigest()
    return Path(datasets.config.HF_DATASETS_CACHE) / "vlmpack" / f"{name}.npz"
