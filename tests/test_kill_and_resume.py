"""Runs that are killed at random moments end as if nothing had happened; see `kill_and_resume.py`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def kills(count: int, folder: Path, *more: str) -> tuple[list[dict], str]:
    """What became of each run, and the last line."""
    command = [
        sys.executable,
        str(ROOT / "tests" / "kill_and_resume.py"),
        "--kills",
        str(count),
        "--folder",
        str(folder),
        *more,
    ]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, cwd=ROOT)
    *outcomes, summary = result.stdout.splitlines() or [result.stderr]
    assert len(outcomes) == count, f"{summary}\n{result.stderr}"
    return [json.loads(line) for line in outcomes], summary


@pytest.mark.slow
def test_20_runs_killed_at_random_moments_end_with_the_same_weights_bit_for_bit(tmp_path):
    outcomes, summary = kills(20, tmp_path)
    assert [each["same_weights"] for each in outcomes] == [True] * 20, summary
    assert [each["same_losses"] for each in outcomes] == [True] * 20, summary
    assert sum(bool(each["half_written"]) for each in outcomes) >= 5, summary  # killed inside a checkpoint


@pytest.mark.slow
def test_without_manifests_half_written_checkpoints_are_taken_and_runs_end_otherwise(tmp_path):
    outcomes, _ = kills(4, tmp_path, "--plain")
    assert not all(each["same_weights"] for each in outcomes)
