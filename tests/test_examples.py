"""The example scripts as a user runs them: on the embedded default, on files, with a wrong flag, with a broken row."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import inputs
import pytest

import scenes

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"
LLAVA_BENCH = DATA / "llava_bench_wild" / "preferences.jsonl"
HARMLESS = DATA / "hh_rlhf_harmless_test"
VOCABULARY = DATA / "tokenizers" / "mistral" / "tokenizer.model.v1"


def run(script: str, *flags: str, folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "examples" / script), *flags, "--output-dir", str(folder / "out")]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


@pytest.fixture
def outcome(tmp_path, monkeypatch, capsys):
    """Runs a script in this process, as its last line does; returns its exit status, what it printed and its error."""

    def run_here(script: str, *flags: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        try:
            inputs.run(lambda: import_module(script).main([*flags, "--output-dir", str(tmp_path / "out")]))
            status = 0
        except SystemExit as stopped:
            status = stopped.code if isinstance(stopped.code, int) else 1
            if status == 1:
                print(stopped.code, file=sys.stderr)
        return status, *capsys.readouterr()

    return run_here


@pytest.fixture
def dataset(tmp_path):
    """Twelve rows in a JSONL file with their pictures beside it."""
    rows = []
    for number, row in enumerate(scenes.rows(3, seed=0)):
        row["images"][0].save(tmp_path / f"{number}.png")
        rows.append({**row, "images": [f"{number}.png"]})
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "rows.jsonl"


@pytest.mark.parametrize(
    "script", [pytest.param(name, marks=pytest.mark.slow) for name in ("train_dpo.py", "train_reward.py")]
)
def test_a_model_trained_from_a_file_is_saved(script, dataset, tmp_path):
    result = run(script, "--dataset", str(dataset), "--max-steps", "1", "--batch-size", "2", folder=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "vlmpack: packing" in result.stdout
    assert "held-out pair accuracy" in result.stdout
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


@pytest.mark.parametrize("script", ["train_reward", "train_dpo"])
def test_help_names_every_flag(script, outcome):
    status, out, _ = outcome(script, "--help")
    assert status == 0
    for flag in ("--model", "--dataset", "--image-root", "--output-dir", "--max-tokens", "--attention"):
        assert flag in out


def test_a_wrong_flag_is_named(outcome):
    status, _, error = outcome("train_reward", "--max-token", "100")
    assert status == 2
    assert "unrecognized arguments: --max-token 100" in error


def test_a_broken_row_stops_before_training_and_is_named(dataset, outcome):
    lines = dataset.read_text().splitlines()
    lines[3] = json.dumps({**json.loads(lines[3]), "images": ["gone.png"]})
    dataset.write_text("\n".join(lines))
    status, _, error = outcome("train_reward", "--dataset", str(dataset), "--eval-dataset", str(dataset))
    assert status == 1
    assert "row 3: row '0-0-3': image gone.png does not exist" in error
    assert "set max_bad_rows=" in error.strip().splitlines()[-1]


def test_a_missing_data_set_is_named(outcome):
    status, _, error = outcome("train_dpo", "--dataset", "gone.jsonl")
    assert status == 1
    assert error.strip().endswith(
        "gone.jsonl does not exist; give a JSON, JSONL or Parquet file, a saved dataset or a hub name"
    )


@pytest.mark.slow
@pytest.mark.skipif(not LLAVA_BENCH.exists(), reason=f"needs {LLAVA_BENCH.name} of LLaVA-Bench beside the checkout")
def test_a_reward_model_trains_on_real_photos(tmp_path):
    flags = ["--dataset", str(LLAVA_BENCH), "--tokenizer", str(VOCABULARY), "--max-steps", "2", "--batch-size", "4"]
    result = run("train_reward.py", *flags, folder=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "1 training rows have no preference pair" in result.stdout
    assert "(3.02x), vision passes 260 → 52 (5.00x)" in result.stdout


@pytest.mark.slow
@pytest.mark.skipif(not HARMLESS.exists(), reason=f"needs {HARMLESS.name} beside the checkout")
def test_dpo_trains_on_real_conversations_without_images(tmp_path):
    flags = ["--dataset", str(HARMLESS), "--tokenizer", str(VOCABULARY), "--max-steps", "2", "--batch-size", "4"]
    result = run("train_dpo.py", *flags, folder=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "4 training rows cannot be read and are left out" in result.stdout
    assert "(1.57x), predicted FLOPs" in result.stdout
