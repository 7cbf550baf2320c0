"""Rows from files, folders and saved datasets; nothing that is missing passes for empty."""

import gzip
import json

import pytest
from datasets import Dataset, DatasetDict

from vlmpack.processors import SourceError, load_rows

ROWS = [{"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "d", "chosen": "e", "rejected": "f"}]
LINES = "\n".join(map(json.dumps, ROWS))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def write(tmp_path, kind: str):
    if kind == "json":
        (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    elif kind == "jsonl":
        (tmp_path / "rows.jsonl").write_text(LINES)
    elif kind == "jsonl.gz":
        (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(LINES.encode()))
    else:
        Dataset.from_list(ROWS).to_parquet(tmp_path / "rows.parquet")
    return tmp_path / f"rows.{kind}"


@pytest.mark.parametrize("kind", ["json", "jsonl", "jsonl.gz", "parquet"])
def test_files_are_read(tmp_path, kind):
    assert load_rows(str(write(tmp_path, kind))).to_list() == ROWS


def test_a_folder_of_files_is_read_in_order(tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "1.jsonl").write_text(json.dumps(ROWS[0]))
    (tmp_path / "part" / "2.jsonl").write_text(json.dumps(ROWS[1]))
    (tmp_path / "part" / "README.md").write_text("no rows")
    assert load_rows(str(tmp_path / "part")).to_list() == ROWS


def test_a_saved_dataset_is_read_by_its_split(tmp_path):
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "one")
    DatasetDict({"test": Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "several")
    assert load_rows(str(tmp_path / "one")).to_list() == ROWS
    assert load_rows(str(tmp_path / "several"), split="test").to_list() == ROWS
    with pytest.raises(SourceError, match="has no split 'train'; it has test"):
        load_rows(str(tmp_path / "several"))


def test_what_is_missing_empty_or_broken_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"gone\.jsonl does not exist"):
        load_rows(str(tmp_path / "gone.jsonl"))
    (tmp_path / "broken.jsonl").write_text('{"prompt": "a"\nnot json')
    with pytest.raises(SourceError, match=r"broken\.jsonl cannot be read"):
        load_rows(str(tmp_path / "broken.jsonl"))
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(SourceError, match=r"holds notes\.txt; give files of one kind"):
        load_rows(str(tmp_path / "notes.txt"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds nothing; give files"):
        load_rows(str(tmp_path / "empty"))
