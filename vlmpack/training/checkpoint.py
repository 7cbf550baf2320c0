"""Which checkpoints are whole: a manifest, written last, lists the files of each."""

import json
import os
import re
import shutil
from pathlib import Path

MANIFEST = "vlmpack_checkpoint.json"
TRANSIENT = (MANIFEST, "checkpoint-is-incomplete.txt")  # the other: transformers' own, while it saves on SIGTERM
BEGUN, REPLACED, DELETED = "begun-", "replaced-", "deleted-"  # before the name of a folder that is not to be found


class CheckpointError(ValueError):
    """A checkpoint is not whole, or does not hold what the model needs."""


def begin(folder: str | Path) -> None:
    """Make an empty folder for a checkpoint, marked as half-written.

    A folder of that name is set aside until the new one is sealed: a run that is killed meanwhile gets it back.

    Args:
        folder: `checkpoint-N` in the output folder of a run; what a killed run left there is cleaned up.
    """
    folder = Path(folder)
    clean(folder.parent)
    begun = _called(BEGUN, folder)
    begun.mkdir(parents=True, exist_ok=True)
    _write_manifest(begun, None)
    if folder.exists():
        folder.rename(_called(REPLACED, folder))
    begun.rename(folder)


def seal(folder: str | Path) -> None:
    """Make a checkpoint whole: everything that it holds now is brought to the disk, then listed in its manifest.

    Trainers do it for what they save. Do it by hand for a checkpoint of another trainer if you know that every file
    of it was written to the end.

    Args:
        folder: of the checkpoint; subfolders count.

    Raises:
        CheckpointError: there are no files to seal.
    """
    folder = Path(folder)
    inside = sorted(folder.rglob("*"))
    files = [path for path in inside if path.is_file() and path.name not in TRANSIENT]
    if not files:
        raise CheckpointError(f"{folder} holds no files, so there is no checkpoint to seal; give its folder")
    for path in [*files, *filter(Path.is_dir, inside), folder.parent]:
        _to_disk(path)
    _write_manifest(folder, {path.relative_to(folder).as_posix(): path.stat().st_size for path in files})
    shutil.rmtree(_called(REPLACED, folder), ignore_errors=True)


def what_is_missing(folder: str | Path) -> str:
    """What keeps a checkpoint from being whole; empty if it is.

    Sizes are compared and contents are not: a file that is listed was on the disk before the manifest was.

    Args:
        folder: of the checkpoint.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return "there is no such folder"
    manifest = _manifest(folder)
    if "files" not in manifest:
        return f"it has no {MANIFEST}: another trainer wrote it, or it was being deleted"
    sizes = manifest["files"]
    if sizes is None:
        return "it was still being written when the run ended"
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is not there"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
    return ""


def is_whole(folder: str | Path) -> bool:
    """Whether a checkpoint may be loaded: every file that belongs to it is there, written to the end."""
    return not what_is_missing(folder)


def whole_checkpoints(output_dir: str | Path) -> dict[int, Path]:
    """The whole checkpoints of a run by their steps, in ascending order.

    Args:
        output_dir: the run's; need not exist.
    """
    return {step: folder for step, folder in _checkpoints(output_dir).items() if is_whole(folder)}


def last_whole(output_dir: str | Path) -> Path | None:
    """The whole checkpoint of the highest step, if there is any; half-written ones are passed over."""
    return next(reversed(whole_checkpoints(output_dir).values()), None)


def clean(output_dir: str | Path) -> list[str]:
    """Remove what a killed run left half-written or half-deleted; nothing could ever load it.

    Folders without a manifest are somebody else's and stay.

    Args:
        output_dir: of a run that is not writing at this moment.

    Returns:
        The names of the half-written checkpoints that were removed.
    """
    for replaced in Path(output_dir).glob(f"{REPLACED}checkpoint-*"):
        folder = replaced.with_name(replaced.name.removeprefix(REPLACED))
        if is_whole(folder):
            shutil.rmtree(replaced, ignore_errors=True)
            continue
        if folder.exists():
            _delete(folder)
        replaced.rename(folder)
    half = [path for path in _checkpoints(output_dir).values() if _manifest(path).get("files", {}) is None]
    for folder in half:
        _delete(folder)
    for deleted in Path(output_dir).glob(f"{DELETED}checkpoint-*"):
        shutil.rmtree(deleted, ignore_errors=True)
    return [folder.name for folder in half]


def rotate(output_dir: str | Path, limit: int | None, keep: list[str | Path]) -> None:
    """Delete the whole checkpoints of the lowest steps until only so many are left.

    Folders that are not whole neither count nor are touched.

    Args:
        output_dir: the run's.
        limit: whole checkpoints to leave. None, or less than 1: all.
        keep: checkpoints that stay, over the limit if need be; so does the one of the highest step.
    """
    whole = list(whole_checkpoints(output_dir).values())
    if limit is None or limit < 1:
        return
    kept = {Path(path).resolve() for path in [*keep, *whole[-1:]]}
    loose = [folder for folder in whole if folder.resolve() not in kept]
    more = len(whole) - max(limit, len(whole) - len(loose))
    for folder in loose[: max(more, 0)]:
        _delete(folder)


def _checkpoints(output_dir: str | Path) -> dict[int, Path]:
    """Folders called checkpoint-N, by N, in ascending order."""
    named = [(re.fullmatch(r"checkpoint-(\d+)", path.name), path) for path in Path(output_dir).glob("checkpoint-*")]
    return dict(sorted((int(match[1]), path) for match, path in named if match and path.is_dir()))


def _called(prefix: str, folder: Path) -> Path:
    return folder.with_name(prefix + folder.name)


def _delete(folder: Path) -> None:
    """Take the name away first: nobody shall find a folder that is half-deleted."""
    deleted = _called(DELETED, folder)
    shutil.rmtree(deleted, ignore_errors=True)
    folder.rename(deleted)
    shutil.rmtree(deleted, ignore_errors=True)


def _manifest(folder: Path) -> dict:
    """`files`: sizes in bytes by name, or None while the checkpoint is being written; empty if there is none."""
    try:
        return json.loads((folder / MANIFEST).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _write_manifest(folder: Path, sizes: dict[str, int] | None) -> None:
    """All of it or nothing: it takes its name only when it is on the disk."""
    new = folder / f"{MANIFEST}.new"
    new.write_text(json.dumps({"files": sizes}, indent=1))
    _to_disk(new)
    new.replace(folder / MANIFEST)
    _to_disk(folder)


def _to_disk(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return  # folders cannot be opened there
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
