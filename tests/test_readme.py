"""The README is short, and its code runs as it stands, on a tiny model that lies where its hub name points."""

import importlib
import json
import re
import shlex
from pathlib import Path

import documents
import pytest

from vlmpack import proven

README = documents.PAGES["README.md"]


@pytest.fixture(scope="module")
def furnished(tmp_path_factory):
    return documents.furnish(tmp_path_factory.mktemp("readme"))


@pytest.fixture
def workplace(furnished, monkeypatch):
    monkeypatch.chdir(furnished)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", furnished / "cache")


def test_both_row_formats_are_read(workplace):
    from vlmpack.processors import PreferenceProcessor

    processor = PreferenceProcessor.from_pretrained("llava-hf/llava-1.5-7b-hf")
    (text,) = documents.blocks("README.md", "json")
    assert [len(processor(json.loads(line)).pairs) for line in text.splitlines()] == [3, 1]


def test_python_blocks_run_in_order(workplace):
    assert documents.run("README.md")["trainer"].state.global_step == 2


@pytest.mark.parametrize(
    "line", [line for page, line in documents.commands() if page == "README.md" and line.startswith("python ")]
)
def test_command_lines_run(workplace, line, capsys):
    """In this process, which has imported all that they need; tests/test_examples.py starts them as users do."""
    _, script, *flags = shlex.split(line)
    assert (documents.ROOT / script).is_file()
    trainer = importlib.import_module(Path(script).stem).main([*flags, "--max-steps", "1", "--batch-size", "4"])
    assert trainer.state.global_step == 1
    assert "model: outputs/" in capsys.readouterr().out


def test_make_commands_are_there():
    targets = set(re.findall(r"^(\w[\w-]*):", (documents.ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    text = "\n".join([*documents.PAGES.values(), *(f"`{line}`" for _, line in documents.commands())])
    named = set(re.findall(r"`make ([\w-]+)`", text))
    assert {"demo", "test"} <= named <= targets


def test_the_quick_start_stands_in_the_first_40_lines():
    assert "trainer.train()" in "\n".join(README.splitlines()[:40])


def test_it_is_short_and_says_first_what_was_not_measured():
    assert len(README.splitlines()) <= 150
    assert "**GPU: not measured.**" in README


def test_the_numbers_of_families_are_those_that_are_accepted():
    assert f"{len(proven.IMAGE_TEXT)} with images, {len(proven.TEXT)} of text" in README
