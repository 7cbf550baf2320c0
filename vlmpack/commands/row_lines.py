"""Rows that are read as they come, from the first or any later one: a JSONL file's, or a data set's."""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from vlmpack.commands.dataset import CommandError

JSONL = (".jsonl", ".jsonl.gz", ".ndjson")


@dataclass(frozen=True)
class BadLine:
    """A line that holds no row.

    Attributes:
        text: of the line.
        error: what is wrong with it.
    """

    text: str
    error: str


@dataclass(frozen=True)
class JsonLines:
    """The rows of a JSONL file; blank lines are none. Only the line at hand is in memory.

    Attributes:
        path: of the file, gzipped if its name ends in `.gz`.
        skip: rows at the beginning that are passed over.
        stop: the row before which it ends; None: all are read.
    """

    path: Path
    skip: int = 0
    stop: int | None = None

    def __iter__(self) -> Iterator[Mapping[str, Any] | BadLine]:
        with self._open() as file:
            rows = ((number, line) for number, line in enumerate(file, 1) if line.strip())
            for number, line in islice(rows, self.skip, self.stop):
                yield _row(number, line)

    def count(self) -> int:
        """All rows of the file.

        Raises:
            CommandError: it is compressed and its end is missing, or it is not what its name says.
        """
        try:
            with self._open() as file:
                return sum(1 for line in file if line.strip())
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise CommandError(f"{self.path} is damaged or cut off ({error}); compress it again") from error

    def _open(self) -> Any:
        return gzip.open(self.path, "rb") if self.path.suffix == ".gz" else self.path.open("rb")


@dataclass(frozen=True)
class DataRows:
    """The rows of a map-style data set.

    Attributes:
        rows: the data set.
        skip: rows at the beginning that are passed over.
        stop: the row before which it ends; None: all are read.
    """

    rows: Any
    skip: int = 0
    stop: int | None = None

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return (self.rows[place] for place in range(len(self.rows))[self.skip : self.stop])

    def count(self) -> int:
        """All rows of the data set."""
        return len(self.rows)


def rows_from(source: str, split: str) -> JsonLines | DataRows:
    """The rows of a source: a JSONL file as a stream, anything else as `load_rows` loads it, images not decoded.

    Args:
        source: JSONL, JSON or Parquet file, folder, saved dataset or hub name.
        split: of a hub dataset.

    Raises:
        CommandError: there is no such file.
    """
    path = Path(source)
    if path.name.endswith(JSONL):
        if not path.is_file():
            raise CommandError(f"{source} does not exist; give a file of rows, one JSON object a line")
        return JsonLines(path)
    from vlmpack.costs.undecoded import undecoded
    from vlmpack.processors import load_rows

    return DataRows(undecoded(load_rows(source, split)))


@dataclass(frozen=True)
class LineReading:
    """A processor that says what is wrong with a line that holds no row.

    Attributes:
        processor: a `PreferenceProcessor`.
    """

    processor: Any

    def candidates(self, row: Mapping[str, Any] | BadLine) -> Any:
        """The row's `Sample`.

        Args:
            row: or what is in its place.

        Raises:
            CommandError: it is no row.
        """
        if isinstance(row, BadLine):
            raise CommandError(row.error)
        return self.processor.candidates(row)


def _row(number: int, line: bytes) -> Mapping[str, Any] | BadLine:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # bytes that are no UTF-8; brackets without end
        return BadLine(line.decode("utf-8", "replace").rstrip("\r\n"), f"line {number} is not JSON: {error}")
    if not isinstance(row, dict):
        return BadLine(
            line.decode("utf-8", "replace").rstrip("\r\n"),
            f"line {number} is a {type(row).__name__}, not an object of columns",
        )
    return row
