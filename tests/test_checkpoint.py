"""Checkpoints are whole or not there, whenever the process that writes them dies."""

import sys
from pathlib import Path

import pytest

from vlmpack.training.checkpoint import (
    MANIFEST,
    CheckpointError,
    begin,
    clean,
    is_whole,
    last_whole,
    rotate,
    seal,
    what_is_missing,
    whole_checkpoints,
)

FILES = {"model.safetensors": "weights", "optimizer.pt": "moments", "global_step3/rank_0.pt": "a shard"}


def write(folder: Path, files: dict[str, str] = FILES) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def sealed(folder: Path, files: dict[str, str] = FILES) -> Path:
    begin(folder)
    write(folder, files)
    seal(folder)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_is_whole_from_the_moment_when_it_is_sealed(tmp_path):
    folder = tmp_path / "checkpoint-3"
    assert what_is_missing(folder) == "there is no such folder"
    begin(folder)
    assert what_is_missing(folder) == "it was still being written when the run ended"
    write(folder)
    assert not is_whole(folder)
    seal(folder)
    assert is_whole(folder)
    assert names(folder) == ["global_step3", "model.safetensors", "optimizer.pt", MANIFEST]


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_gone_or_cut_short_is_named(name, tmp_path):
    folder = sealed(tmp_path / "checkpoint-3")
    text = (folder / name).read_text()
    (folder / name).write_text(text[:-1])
    assert what_is_missing(folder) == f"{name} has {len(text) - 1} bytes instead of {len(text)}"
    (folder / name).unlink()
    assert what_is_missing(folder) == f"{name} is not there"


def test_files_that_come_later_do_no_harm(tmp_path):
    folder = sealed(tmp_path / "checkpoint-3")
    (folder / "README.md").write_text("of the best run ever")
    assert is_whole(folder)


def test_a_note_that_transformers_takes_away_again_is_not_listed(tmp_path):
    folder = tmp_path / "checkpoint-3"
    begin(folder)
    write(folder, {**FILES, "checkpoint-is-incomplete.txt": "saving on SIGTERM"})
    seal(folder)
    (folder / "checkpoint-is-incomplete.txt").unlink()
    assert is_whole(folder)


def test_the_checkpoint_of_another_trainer_counts_only_when_it_was_sealed_by_hand(tmp_path):
    folder = tmp_path / "checkpoint-3"
    write(folder)
    assert what_is_missing(folder) == f"it has no {MANIFEST}: another trainer wrote it, or it was being deleted"
    assert last_whole(tmp_path) is None
    seal(folder)
    assert last_whole(tmp_path) == folder


def test_a_manifest_that_cannot_be_read_is_none(tmp_path):
    folder = sealed(tmp_path / "checkpoint-3")
    (folder / MANIFEST).write_text('{"files": {"model')
    assert what_is_missing(folder).startswith(f"it has no {MANIFEST}")


def test_an_empty_folder_cannot_be_sealed(tmp_path):
    with pytest.raises(CheckpointError, match=r"checkpoint-3 holds no files, so there is no checkpoint to seal"):
        seal(tmp_path / "checkpoint-3")


def test_the_last_whole_one_is_that_of_the_highest_step(tmp_path):
    assert last_whole(tmp_path / "nothing") is None
    for step in (12, 9, 100):  # 100 < 12 < 9 as words
        sealed(tmp_path / f"checkpoint-{step}")
    sealed(tmp_path / "checkpoint-best")
    begin(tmp_path / "checkpoint-101")
    assert list(whole_checkpoints(tmp_path)) == [9, 12, 100]
    assert last_whole(tmp_path) == tmp_path / "checkpoint-100"


def test_what_was_left_half_written_is_removed_and_nothing_else(tmp_path):
    sealed(tmp_path / "checkpoint-3")
    write(tmp_path / "checkpoint-6")  # of another trainer
    (sealed(tmp_path / "checkpoint-9") / "optimizer.pt").unlink()  # by somebody who needed the space
    begin(tmp_path / "checkpoint-12")
    write(tmp_path / "checkpoint-12")
    assert clean(tmp_path) == ["checkpoint-12"]
    assert names(tmp_path) == ["checkpoint-3", "checkpoint-6", "checkpoint-9"]
    assert clean(tmp_path / "nothing") == []


def test_a_checkpoint_that_is_written_anew_stays_until_the_new_one_is_whole(tmp_path):
    folder = sealed(tmp_path / "checkpoint-3", {"model.safetensors": "old", "stale.bin": "old"})
    begin(folder)
    write(folder, {"model.safetensors": "new"})
    clean(tmp_path)  # as after a kill
    assert is_whole(folder)
    assert (folder / "model.safetensors").read_text() == "old"
    sealed(folder, {"model.safetensors": "new"})
    assert names(tmp_path) == ["checkpoint-3"]
    assert names(folder) == ["model.safetensors", MANIFEST]


@pytest.mark.parametrize(
    ("limit", "keep", "left"),
    [
        (None, [], [3, 6, 9, 12]),
        (0, [], [3, 6, 9, 12]),
        (4, [], [3, 6, 9, 12]),
        (2, [], [9, 12]),
        (1, [], [12]),
        (2, ["checkpoint-3"], [3, 12]),
        (1, ["checkpoint-3", "checkpoint-9"], [3, 9, 12]),
    ],
)
def test_the_oldest_whole_checkpoints_go_first_and_the_last_never(limit, keep, left, tmp_path):
    for step in (3, 6, 9, 12):
        sealed(tmp_path / f"checkpoint-{step}")
    rotate(tmp_path, limit, keep=[tmp_path / name for name in keep])
    assert list(whole_checkpoints(tmp_path)) == left
    assert names(tmp_path) == sorted(f"checkpoint-{step}" for step in left)


def test_what_is_not_whole_does_not_push_out_what_is(tmp_path):
    sealed(tmp_path / "checkpoint-3")
    write(tmp_path / "checkpoint-6")
    begin(tmp_path / "checkpoint-9")
    rotate(tmp_path, 1, keep=[])
    assert names(tmp_path) == ["checkpoint-3", "checkpoint-6", "checkpoint-9"]


def saved(folder: Path, generation: str, limit: int = 1) -> None:
    """What a trainer does to save once."""
    sealed(folder, {"model.safetensors": generation, "shards/optimizer.pt": generation})
    rotate(folder.parent, limit, keep=[folder])


class Death(BaseException):
    """Nothing that the dying would have done is done."""


class Touches:
    """Counts what Python is about to do to files of a folder, and dies at one of them."""

    folder: Path | None = None
    count = last = 0

    def __call__(self, event: str, given: tuple) -> None:
        if self.folder is not None and self.concerns(event, given):
            self.count += 1
            if self.count == self.last:
                self.folder = None
                raise Death

    def concerns(self, event: str, given: tuple) -> bool:
        removes = event in ("os.remove", "os.rmdir")  # of a tree: by names within its folders
        return removes or (event.startswith(("open", "os.", "shutil.")) and str(self.folder) in str(given))


TOUCHES = Touches()
sys.addaudithook(TOUCHES)  # there is no way to take it off; it does nothing without a folder


def dies_at(touch: int, work, folder: Path) -> bool:
    """Whether the work dies when it touches a file of the folder for the so-manieth time; else it comes to the end."""
    TOUCHES.folder, TOUCHES.count, TOUCHES.last = folder, 0, touch
    try:
        work()
    except Death:
        return True
    finally:
        TOUCHES.folder = None
    return False


@pytest.mark.parametrize("again", [False, True], ids=["the next checkpoint", "the same one anew"])
def test_death_at_any_touch_of_a_file_leaves_a_whole_checkpoint(again, tmp_path):
    for touch in range(1, 1000):
        run = tmp_path / f"run {touch}"
        saved(run / "checkpoint-3", "old")
        target = run / ("checkpoint-3" if again else "checkpoint-6")
        died = dies_at(touch, lambda target=target: saved(target, "new"), run)
        clean(run)
        last = last_whole(run)
        assert last is not None, f"nothing whole is left after a death at touch {touch}"
        texts = {(last / name).read_text() for name in ("model.safetensors", "shards/optimizer.pt")}
        assert len(texts) == 1, f"old and new files together after a death at touch {touch}"
        assert died or texts == {"new"}
        saved(target, "new")
        assert names(run) == [target.name], f"leftovers of a death at touch {touch}"
        if not died:
            break
    assert touch > 30  # or the deaths were not where files are touched
