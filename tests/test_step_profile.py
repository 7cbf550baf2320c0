"""Where a step's time goes: parts are told apart, and a real run's parts add up to it."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "examples" / "benchmarks"))

import step_profile
from step_profile import FORWARD, PLANNING, REST, Stopwatch, table


def test_a_part_is_timed_without_the_parts_inside_it(monkeypatch):
    clock = iter([0.0, 1.0, 3.0, 6.0, 10.0, 15.0])
    monkeypatch.setattr(step_profile.time, "perf_counter", lambda: next(clock))
    stopwatch = Stopwatch(REST)
    with stopwatch.part(FORWARD), stopwatch.part(PLANNING):  # from 1 to 10, and from 3 to 6
        pass
    assert stopwatch.stop() == {REST: 1.0 + 5.0, FORWARD: 2.0 + 4.0, PLANNING: 3.0}


def test_the_table_says_what_is_outside_the_model():
    text = table({FORWARD: 9.0, PLANNING: 0.5, REST: 0.5}, 10, "a note")
    assert "Outside the model: 10.0% of a step of 1,000 ms." in text
    assert "| planning | 50.0 | 5.00% |" in text


def test_a_run_is_profiled(tmp_path, capsys):
    row = {"prompt": "What is this?", "chosen": "A cat.", "rejected": "A dog, I think."}
    (tmp_path / "rows.jsonl").write_text("\n".join([json.dumps(row)] * 8))
    flags = {"dataset": tmp_path / "rows.jsonl", "output-dir": tmp_path, "max-steps": 3, "batch-size": 4, "workers": 0}
    seconds = step_profile.main([str(part) for name, value in flags.items() for part in (f"--{name}", value)])
    assert all(seconds[part] > 0 for part in (*step_profile.INSIDE, step_profile.WAITING, PLANNING, REST))
    assert "rows 4, steps 1, workers 0" in (tmp_path / "cpu.md").read_text()
    assert (tmp_path / "cpu.png").exists()
    assert "result: " in capsys.readouterr().out
