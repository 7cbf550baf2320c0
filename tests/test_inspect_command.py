"""`vlmpack inspect`: rows of a data set as a pack, in a terminal and in files."""

import json

import pytest

import scenes
from vlmpack import cli


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two questions on one picture and two on another, and the processor that reads them."""
    folder = tmp_path_factory.mktemp("rows")
    rows = []
    for number, row in enumerate(scenes.rows(2, seed=3, questions=2)):
        row["images"][0].save(folder / f"{number // 2}.png")
        rows.append({**row, "images": [f"{number // 2}.png"]})
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    scenes.processor().save_pretrained(folder / "processor")
    return folder


def inspect(folder, *flags):
    return cli.main(["inspect", str(folder / "rows.jsonl"), "--tokenizer", str(folder / "processor"), *flags])


def test_a_row_is_shown_in_the_terminal(dataset, capsys):
    assert inspect(dataset, "--row", "2") == 0
    out = capsys.readouterr().out
    assert out.startswith("1 prompt, 4 responses: ")
    assert "[image 1: 16 tokens]⏎How many, and on what ground? ASSISTANT:" in out
    assert "B1" not in out


def test_rows_are_packed_together_and_share_their_picture(dataset, capsys):
    assert inspect(dataset, "--row", "0", "1") == 0
    out = capsys.readouterr().out
    assert out.startswith("2 prompts, 8 responses: ")
    assert "1 vision pass instead of 8 (8.00x)" in out


def test_a_page_and_a_picture_are_written(dataset, tmp_path, capsys):
    page, picture = tmp_path / "pack.html", tmp_path / "pack.png"
    assert inspect(dataset, "--html", str(page), "--png", str(picture)) == 0
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"page: {page}\npicture: {picture}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--row", "4"], "--row 4: {rows} has 4 rows, 0 to 3"),
        (["--row", "1", "1"], "--row 1 1 names a row twice; name each once"),
        (["--html", "gone/pack.html"], "gone/pack.html cannot be written: there is no folder"),
        (["--html", "."], ". cannot be written: it is a folder"),
        (["--png", "pack.xyz"], "--png cannot write pictures that end in 'xyz'; take one of "),
        (["--png", "pack"], "--png cannot write pictures that end in ''; take one of "),
        (["--tokenizer", "gone"], "gone has no processor or tokenizer; name one with --tokenizer"),
    ],
    ids=["no such row", "a row twice", "no such folder", "a folder", "no picture", "no ending", "no processor"],
)
def test_what_cannot_be_done_is_named(flags, said, dataset, capsys):
    assert inspect(dataset, *flags) == 2
    assert f"vlmpack: {said.format(rows=dataset / 'rows.jsonl')}" in capsys.readouterr().err


def test_a_row_that_cannot_be_read_is_named_by_its_number(dataset, capsys):
    broken = dataset / "broken.jsonl"
    broken.write_text(json.dumps({"prompt": "", "responses": ["a", "b"], "scores": [1, 2]}))
    assert cli.main(["inspect", str(broken), "--tokenizer", str(dataset / "processor")]) == 2
    assert "vlmpack: --row 0: the prompt is empty; a response needs" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_named(dataset, capsys, monkeypatch):
    def refuse(path, *arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.write_text", refuse)
    assert inspect(dataset, "--html", "pack.html") == 2
    assert "vlmpack: pack.html cannot be written: [Errno 13] Permission denied" in capsys.readouterr().err
