"""An output file with a line for every row, that a killed run leaves fit to be gone on with."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vlmpack.commands.dataset import CommandError


class ResumedOutput:
    """Lines in the order of the rows; what a killed run left is cut back to whole windows and gone on with.

    A window's rows are computed together, so a run that begins again where a window began computes the same numbers,
    to the last bit, as one that was never killed. Beside the file stands another, `.run.json`, that says what makes it.

    Args:
        path: of the file.
        run: what decides about its lines: model, rows, settings.
        window: rows that are computed together.
        total: rows in all; the last window may be smaller.
        overwrite: begin anew, whatever is there.

    Attributes:
        path: of the file.
        lines: that it holds already, so many rows are done.

    Raises:
        CommandError: the file is another run's, another run is writing it, or it cannot be written.
    """

    def __init__(self, path: Path, run: Mapping[str, Any], window: int, total: int, overwrite: bool = False) -> None:
        self.path, self._note = path, path.with_name(f"{path.name}.run.json")
        if path.suffix == ".gz":
            raise CommandError(f"{path} would be compressed, which cannot be gone on with; leave out .gz")
        if path.is_dir() or not path.absolute().parent.is_dir():
            why = "it is a folder" if path.is_dir() else f"there is no folder {path.absolute().parent}"
            raise CommandError(f"{path} cannot be written: {why}")
        if not overwrite:
            self._check(run)
        try:
            self._file = path.open("a+b")
            _lock(self._file, path)
            self.lines = _cut_back(self._file, 0 if overwrite else window, total)
            self._note.write_text(json.dumps(dict(run), indent=1))
        except OSError as error:
            raise CommandError(f"{path} cannot be written: {error}") from error

    def _check(self, run: Mapping[str, Any]) -> None:
        if not self.path.exists() or self.path.stat().st_size == 0:
            return
        try:
            before = json.loads(self._note.read_text())
        except (OSError, ValueError):
            before = None
        if before != dict(run):
            changed = [name for name in run if before is not None and before.get(name) != run[name]]
            why = f"by a run with other {', '.join(changed)}" if changed else "by something else"
            raise CommandError(f"{self.path} was written {why}; name another file, or give --overwrite")

    def write(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Add a window's lines, and see them on the disk.

        Args:
            lines: one for each of its rows.
        """
        self._file.write("".join(as_line(line) for line in lines).encode("utf-8", "backslashreplace"))
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Nothing more is written."""
        self._file.close()


def _cut_back(file: Any, window: int, total: int) -> int:
    """Cut a file back to whole windows of whole lines; a window of 0 empties it. Returns the lines that are left."""
    file.seek(0)
    end, lines, whole = 0, 0, (0, 0)
    for line in file:
        if not line.endswith(b"\n") or not window:
            break
        end, lines = end + len(line), lines + 1
        if lines % window == 0 or lines == total:
            whole = (end, lines)
    file.truncate(whole[0])
    file.seek(0, os.SEEK_END)
    return whole[1]


def _lock(file: Any, path: Path) -> None:
    """Two runs that go on with one file would write every row twice."""
    try:
        import fcntl
    except ImportError:
        return  # not on Windows
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise CommandError(f"another run is writing {path}; wait for it, or name another file") from error
    except OSError:
        return  # a file system without locks


def as_line(columns: Mapping[str, Any]) -> str:
    """A row as a line of JSON.

    Args:
        columns: of the row; bytes, which JSON has no form for, become their number.
    """
    return json.dumps(columns, ensure_ascii=False, default=_plain) + "\n"


def _plain(value: Any) -> Any:
    """Whatever JSON has no form for, such as the bytes of an image."""
    return f"{len(value)} bytes" if isinstance(value, bytes) else str(value)
