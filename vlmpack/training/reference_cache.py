"""The reference model's log-probabilities on disk: computed once, kept through crashes, each model's its own."""

import json
import os
import re
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from vlmpack.training.reference_rows import CONTENT, DamagedRowsError, Rows, digests, from_bytes, joined, to_bytes

FORMAT = 1  # of the files; a change of it, or of what a log-probability means, makes every key another
STALE = 3600.0  # seconds after which a temporary file is a dead writer's; a living one needs it for less than one

_PART = re.compile(r"part-\d{5}-[0-9a-f]{32}\.safetensors")
_TEMPORARY = re.compile(r"\.(part-\d{5}|key)-[0-9a-f]{32}\.tmp")


class ReferenceCacheError(ValueError):
    """Reference log-probabilities are not in the cache, or not as they are asked for."""


@dataclass(frozen=True)
class CacheKey:
    """Everything besides a row's own tokens and images that its reference log-probabilities depend on.

    Attributes:
        weights: `vlmpack.training.weights_digest.weights_digest` of the reference model.
        processor: what turns a row into tokens and pixels, as a digest or in words.
        settings: what else changes the computation, in words: "max_length=1024".
    """

    weights: str
    processor: str
    settings: str

    @cached_property
    def digest(self) -> str:
        """64 hexadecimal digits, different for every other key."""
        return sha256(json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True).encode()).hexdigest()


class ReferenceCache:
    """Log-probabilities of rows under one key, in a folder that several ranks and runs write to at once.

    Rows are written in part files, each complete or not there, so that a crash loses no more than what was not written
    yet. Another key has another folder, beside it, and `key.json` in each says in what they differ.

    Args:
        folder: of all keys; made if it is not there.
        key: whose rows these are; those of no other are read.
        rank: of the writer, for the names of files.
        flush_every: rows after which a part is written.

    Raises:
        ReferenceCacheError: the key's folder holds another key.

    Example:
        >>> import tempfile
        >>> key = CacheKey(weights="a1", processor="b2", settings="max_length=512")
        >>> cache = ReferenceCache(tempfile.mkdtemp(), key)
        >>> cache.add(bytes(16), [-3.5, -1.25])
        >>> cache.get(bytes(16))
        tensor([-3.5000, -1.2500], dtype=torch.float64)
    """

    def __init__(self, folder: str | Path, key: CacheKey, rank: int = 0, flush_every: int = 256) -> None:
        self.folder = Path(folder) / key.digest[:32]
        self.key, self.rank, self.flush_every = key, rank, flush_every
        self._seen: set[str] = set()  # names of the parts that were read or written
        self._rows = Rows.of({})
        self._unjoined: list[Rows] = []  # written or read, and not looked for yet
        self._pending: dict[bytes, Float64[np.ndarray, " R"]] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_stale()
        self._write_key()
        self.reload()

    def add(self, content: bytes, logps: Sequence[float] | Tensor) -> None:
        """Remember a row's log-probabilities; they are on disk after the next `flush`.

        Args:
            content: 16 bytes, the digest of the row's tokens and images.
            logps: [R] nats, one value a response.

        Raises:
            ReferenceCacheError: the digest is of another size, there is no response, or a value is not finite.
        """
        _check(content)
        values = torch.as_tensor(logps, dtype=torch.float64).detach().cpu().numpy().copy()
        if values.ndim != 1 or len(values) == 0:
            raise ReferenceCacheError(f"row {content.hex()}: give one value a response, not a shape of {values.shape}")
        if not np.isfinite(values).all():
            raise ReferenceCacheError(
                f"row {content.hex()}: the reference log-probabilities are {values.tolist()}; kept, they would spoil "
                f"every later run. See what this row makes of the reference model before training on it"
            )
        self._pending.setdefault(content, values)
        if len(self._pending) >= self.flush_every:
            self.flush()

    def flush(self) -> None:
        """Write what was added since; after this a crash does not lose it."""
        if not self._pending:
            return
        rows, unique = Rows.of(self._pending), uuid4().hex
        name = f"part-{self.rank:05d}-{unique}.safetensors"
        self._write(f".part-{self.rank:05d}-{unique}.tmp", name, to_bytes(rows, self.key.digest))
        self._seen.add(name)
        self._unjoined.append(rows)
        self._pending.clear()

    def reload(self) -> None:
        """Read what other ranks have written since; a damaged part is set aside, and its rows count as unknown."""
        names = sorted(entry.name for entry in os.scandir(self.folder) if _PART.fullmatch(entry.name))
        for name in names:
            if name not in self._seen and (rows := self._read(name)) is not None:
                self._seen.add(name)
                self._unjoined.append(rows)

    def known(self, contents: Sequence[bytes]) -> Bool[np.ndarray, " n"]:
        """Which rows need not be computed.

        Args:
            contents: n digests of 16 bytes.
        """
        for content in contents:
            _check(content)
        pending = np.array([content in self._pending for content in contents], dtype=bool)
        return pending | self._table.known(digests(contents))

    def get(self, content: bytes, responses: int | None = None) -> Float64[Tensor, " R"]:
        """A row's log-probabilities.

        Args:
            content: 16 bytes, the digest of the row's tokens and images.
            responses: R, if it is known how many there must be.

        Raises:
            ReferenceCacheError: the row is not here, or has another number of responses.
        """
        _check(content)
        values = self._table.get(content)
        values = self._pending.get(content) if values is None else values
        if values is None:
            raise ReferenceCacheError(
                f"row {content.hex()} is none of the {len(self)} rows in {self.folder}; compute it and add it"
            )
        if responses not in (None, len(values)):
            raise ReferenceCacheError(
                f"row {content.hex()} has {len(values)} reference log-probabilities in {self.folder} and {responses} "
                f"responses; a digest of the row must cover all of its responses"
            )
        return torch.from_numpy(values.copy())

    def __contains__(self, content: bytes) -> bool:
        return bool(self.known([content])[0])

    def __len__(self) -> int:
        pending = digests(list(self._pending))
        return len(self._table) + int((~self._table.known(pending)).sum())

    @property
    def _table(self) -> Rows:
        """Every row that was read or written, joined when somebody looks."""
        if self._unjoined:
            self._rows = joined([self._rows, *self._unjoined])
            self._unjoined = []
        return self._rows

    def _read(self, name: str) -> Rows | None:
        path = self.folder / name
        with suppress(FileNotFoundError):  # another rank has just set it aside
            data = path.read_bytes()
            try:
                return from_bytes(data, self.key.digest)
            except DamagedRowsError as error:
                path.rename(aside := path.with_suffix(".damaged"))
                warnings.warn(f"set aside as {aside}: {error}; its rows are computed again", stacklevel=3)
        return None

    def _write(self, temporary: str, name: str, data: bytes) -> None:
        """A file that is there as a whole or not at all."""
        path = self.folder / temporary
        try:
            with path.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            path.replace(self.folder / name)
        finally:
            path.unlink(missing_ok=True)

    def _write_key(self) -> None:
        """What the key is made of, for people; equal for all ranks, so that it does not matter who is last."""
        path, text = self.folder / "key.json", json.dumps(asdict(self.key), indent=2) + "\n"
        if not path.exists():
            self._write(f".key-{uuid4().hex}.tmp", path.name, text.encode())
        elif path.read_text() != text:
            raise ReferenceCacheError(f"{path} says\n{path.read_text()}and this key is\n{text}Move that folder away")

    def _remove_stale(self) -> None:
        """Temporary files of writers that died; only names that this class gives."""
        for entry in os.scandir(self.folder):
            if _TEMPORARY.fullmatch(entry.name) and _age(entry.path) > STALE:
                Path(entry.path).unlink(missing_ok=True)


def _age(path: str) -> float:
    """Seconds since a file was written; 0 if it is gone, because its writer has just put it in place."""
    try:
        return time.time() - os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0


def _check(content: bytes) -> None:
    if len(content) != CONTENT:
        raise ReferenceCacheError(f"{content!r} has {len(content)} bytes and a row's digest has {CONTENT}")
