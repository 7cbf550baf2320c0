"""Rows of the `datasets` library as they are stored: their images are decoded once, by the processor."""

from collections.abc import Mapping
from copy import copy, deepcopy
from dataclasses import replace
from typing import Any

import datasets


def undecoded(rows: Any) -> Any:
    """The same data set with its images, also those in lists and dicts, given as `{"bytes": ..., "path": ...}`.

    `datasets` decodes every image of a row when the row is read, also where only its lengths are asked for. No data is
    copied, and the fingerprint stays. A data set with a format or transform of its own is left alone, for that may
    need the pixels; so is a stream whose columns are not known, and what is no data set of this library.

    Args:
        rows: anything that holds rows.
    """
    if isinstance(rows, datasets.Dataset) and rows.format["type"] is None:
        changed = deepcopy(rows)  # as its own methods do; the table is not copied
        changed.info.features = datasets.Features(_stored(rows.features))
        return changed
    if isinstance(rows, datasets.IterableDataset) and rows.features is not None:
        # load_dataset may have threads decode a stream ahead, which only `decode`, where it is there, takes back
        return rows.decode(False) if hasattr(rows, "decode") else rows.cast(datasets.Features(_stored(rows.features)))
    return rows


def _stored(feature: Any) -> Any:
    """A feature, or what holds several, with images that are not decoded."""
    if isinstance(feature, datasets.Image):
        return replace(feature, decode=False)
    if isinstance(feature, Mapping):
        return {name: _stored(each) for name, each in feature.items()}
    if isinstance(feature, list | tuple):
        return [_stored(each) for each in feature]
    if hasattr(feature, "feature"):  # every kind of list there is
        changed = copy(feature)
        changed.feature = _stored(feature.feature)
        return changed
    return feature
