"""The README's code runs as it stands, on a tiny model that lies where its hub name points."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import LlavaForConditionalGeneration

import scenes

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with the files that the README speaks of; a relative path stands in for the hub."""
    processor = scenes.processor()
    folder = tmp_path / "llava-hf" / "llava-1.5-7b-hf"
    LlavaForConditionalGeneration(scenes.llava_config(processor)).save_pretrained(folder)
    processor.save_pretrained(folder)
    scenes.rows(1, seed=0)[0]["images"][0].save(tmp_path / "cat.png")
    scored = json.loads(blocks("json")[0].splitlines()[0])
    (tmp_path / "preferences.jsonl").write_text("\n".join([json.dumps(scored)] * 8))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


def test_both_row_formats_are_read(workplace):
    from vlmpack.processors import PreferenceProcessor

    processor = PreferenceProcessor.from_pretrained("llava-hf/llava-1.5-7b-hf")
    assert [len(processor(json.loads(line)).pairs) for line in blocks("json")[0].splitlines()] == [3, 1]


def test_python_blocks_run_in_order(workplace):
    scope: dict = {}
    for text in blocks("python"):
        exec(compile(text, "README.md", "exec"), scope)
    assert scope["trainer"].state.global_step == 2


@pytest.mark.parametrize(
    "line", [line for text in blocks("bash") for line in text.splitlines() if line.startswith("python ")]
)
def test_command_lines_run(workplace, line):
    _, script, *flags = shlex.split(line)
    command = [sys.executable, str(ROOT / script), *flags, "--max-steps", "1", "--batch-size", "4"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=workplace)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "model: outputs/" in result.stdout


def test_make_commands_are_there():
    targets = set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([\w-]+)", README, flags=re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


def test_the_quick_start_stands_in_the_first_40_lines():
    assert "trainer.train()" in "\n".join(README.splitlines()[:40])


def test_every_picture_and_file_it_names_is_there():
    for path in re.findall(r'src="([^"]+)"', README) + re.findall(r"examples/[\w/]+\.py", README):
        assert (ROOT / path).exists(), path
