"""Rows of reference log-probabilities: sorted arrays in memory, one file of them on disk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import groupby

import numpy as np
from jaxtyping import Bool, Float64, Int
from safetensors import SafetensorError
from safetensors.numpy import load, save

CONTENT = 16  # bytes of a row's digest
_CONTENTS = np.dtype(f"S{CONTENT}")  # compares as bytes do: all are of one length, so that padding means nothing


class DamagedRowsError(ValueError):
    """A file does not hold the rows that were written to it."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Log-probabilities of many rows, found by what the rows hold.

    A million rows of four responses take 64 MB here; as a dict of tensors they would take over a gigabyte.

    Attributes:
        contents: [N] digests of 16 bytes, sorted, each once.
        starts: [N] where in `logps` a row's responses start.
        counts: [N] R of each row.
        logps: nats, float64, so that what any model computes in is kept to the bit.
    """

    contents: np.ndarray
    starts: Int[np.ndarray, " N"]
    counts: Int[np.ndarray, " N"]
    logps: Float64[np.ndarray, " _"]

    @classmethod
    def of(cls, values: Mapping[bytes, Float64[np.ndarray, " _"]]) -> "Rows":
        """Rows from the log-probabilities of each digest."""
        contents = sorted(values)
        counts = np.array([len(values[content]) for content in contents], dtype=np.int64)
        logps = np.concatenate([np.empty(0), *(values[content] for content in contents)])
        return cls(digests(contents), counts.cumsum() - counts, counts, logps)

    def __len__(self) -> int:
        return len(self.contents)

    def known(self, contents: np.ndarray) -> Bool[np.ndarray, " n"]:
        """Which of some digests are here."""
        if len(self) == 0:
            return np.zeros(len(contents), dtype=bool)
        place = self.contents.searchsorted(contents)
        return self.contents[np.minimum(place, len(self) - 1)] == contents

    def get(self, content: bytes) -> Float64[np.ndarray, " R"] | None:
        """The log-probabilities of a row; None if it is not here."""
        place = int(self.contents.searchsorted(digests([content]))[0])
        if place == len(self) or self.contents[place] != digests([content])[0]:
            return None
        return self._at(place)

    def _at(self, place: int) -> Float64[np.ndarray, " R"]:
        return self.logps[self.starts[place] : self.starts[place] + self.counts[place]]


def digests(contents: Sequence[bytes]) -> np.ndarray:
    """[n] digests as an array that sorts and compares as they do."""
    return np.frombuffer(b"".join(contents), dtype=_CONTENTS)


def joined(parts: Sequence[Rows]) -> Rows:
    """All rows of some parts, each once.

    Two ranks may have computed the same row, and their packs may have rounded it differently. The smaller value is
    kept, in whatever order the parts come, so that all ranks and later runs use the same.
    """
    before = np.cumsum([0, *(len(part.logps) for part in parts)])
    contents = np.concatenate([part.contents for part in parts])
    order = contents.argsort(kind="stable")  # fast, for it finds the sorted runs that the parts are
    rows = Rows(
        contents[order],
        np.concatenate([part.starts + first for part, first in zip(parts, before[:-1], strict=True)])[order],
        np.concatenate([part.counts for part in parts])[order],
        np.concatenate([part.logps for part in parts]),
    )
    return _each_once(rows)


def _each_once(rows: Rows) -> Rows:
    repeats = np.flatnonzero(rows.contents[1:] == rows.contents[:-1]) + 1
    if len(repeats) == 0:
        return rows
    keep, starts, counts = np.ones(len(rows), dtype=bool), rows.starts.copy(), rows.counts.copy()
    for _, group in groupby(enumerate(repeats.tolist()), key=lambda pair: pair[1] - pair[0]):  # neighbours
        places = [place for _, place in group]
        first = places[0] - 1
        best = min([first, *places], key=lambda place: rows._at(place).tolist())
        starts[first], counts[first], keep[places] = rows.starts[best], rows.counts[best], False
    return Rows(rows.contents[keep], starts[keep], counts[keep], rows.logps)


def to_bytes(rows: Rows, key: str) -> bytes:
    """A safetensors file of rows that lie one after the other, with a checksum that holds under one key only."""
    tensors = {
        "contents": np.frombuffer(rows.contents.tobytes(), dtype=np.uint8).reshape(-1, CONTENT),
        "starts": np.append(rows.starts, len(rows.logps)),
        "logps": rows.logps,
    }
    return save({**tensors, "checksum": _checksum(tensors, key)})


def from_bytes(data: bytes, key: str) -> Rows:
    """The rows of a file that `to_bytes` wrote under the same key.

    Raises:
        DamagedRowsError: the file is cut short, changed, or of another key.
    """
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise DamagedRowsError(f"it is no whole safetensors file: {error}") from error
    checksum = tensors.pop("checksum", None)
    if set(tensors) != {"contents", "starts", "logps"} or not np.array_equal(checksum, _checksum(tensors, key)):
        raise DamagedRowsError("its checksum is not that of its rows under this key")
    starts = tensors["starts"]
    return Rows(digests([tensors["contents"].tobytes()]), starts[:-1], np.diff(starts), tensors["logps"])


def _checksum(tensors: Mapping[str, np.ndarray], key: str) -> np.ndarray:
    digest = blake2b(key.encode(), digest_size=16)
    for name in ("contents", "starts", "logps"):
        array = tensors[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array))
    return np.frombuffer(digest.digest(), dtype=np.uint8)
