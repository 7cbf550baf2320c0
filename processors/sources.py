"""Where rows come from: a file, a folder of files, a saved dataset, or a hub name."""

from pathlib import Path

from datasets import Dataset, DatasetDict, load_dataset, load_from_disk

BUILDERS = {".json": "json", ".jsonl": "json", ".parquet": "parquet"}


class SourceError(ValueError):
    """A dataset cannot be found or read; the message says what was looked for."""


def load_rows(source: str, split: str = "train") -> Dataset:
    """Load rows of data. Only a hub name uses the network.

    Args:
        source: a JSON, JSONL or Parquet file (may be gzipped), a folder of such files, a folder written by
            `Dataset.save_to_disk`, or a name on the hub.
        split: of a hub dataset or a saved `DatasetDict`.

    Returns:
        A map-style data set of rows as they are; trainers and `PreferenceProcessor` read them.

    Raises:
        SourceError: there is nothing there, it cannot be read, or it holds no rows or not that split.
    """
    path = Path(source)
    if path.is_dir() and ((path / "state.json").exists() or (path / "dataset_dict.json").exists()):
        rows = _choose(load_from_disk(str(path)), split, source)
    elif path.exists():
        rows = _read_files([path] if path.is_file() else _data_files(path), source)
    elif path.suffix in (*BUILDERS, ".gz") or source.startswith((".", "/")):
        raise SourceError(f"{source} does not exist; give a JSON, JSONL or Parquet file, a saved dataset or a hub name")
    else:
        rows = _choose(load_dataset(source, split=split), split, source)
    if len(rows) == 0:
        raise SourceError(f"{source} holds no rows")
    return rows


def _data_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if _builder(path))


def _builder(path: Path) -> str | None:
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    return BUILDERS.get(suffix)


def _read_files(files: list[Path], source: str) -> Dataset:
    builders = {_builder(path) for path in files}
    if len(builders) != 1 or None in builders:
        found = ", ".join(path.name for path in files[:5]) or "nothing"
        raise SourceError(f"{source} holds {found}; give files of one kind out of {', '.join(BUILDERS)}")
    try:
        return load_dataset(builders.pop(), data_files=[str(path) for path in files], split="train")
    except Exception as error:  # datasets wraps the parser's own error
        empty = [path.name for path in files if not path.stat().st_size]
        why = f"{', '.join(empty)} is empty" if empty else error.__cause__ or error
        raise SourceError(f"{source} cannot be read: {why}") from error


def _choose(rows: Dataset | DatasetDict, split: str, source: str) -> Dataset:
    if not isinstance(rows, DatasetDict):
        return rows
    if split not in rows:
        raise SourceError(f"{source} has no split {split!r}; it has {', '.join(rows)}")
    return rows[split]
