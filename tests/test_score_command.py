"""`vlmpack score` and `vlmpack rank`: every row in, every row out, in order, whatever is wrong with one or kills the run."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from test_reward_sharing import speaking

from vlmpack import RewardModel, cli
from vlmpack.commands.resumed_output import ResumedOutput

QUESTIONS = ("What is there?", "Where is it?", "How many, and on what ground?")
ANSWERS = ("red ring", "a blue cross", "top left", "one on navy")


def row(number: int) -> dict:
    answers = [ANSWERS[(number + k) % 4] for k in range(2 + number % 3)]
    return {"id": number, "prompt": QUESTIONS[number % 3], "responses": answers}


def rows_file(path, rows):
    path.write_text("".join(json.dumps(each) + "\n" if isinstance(each, dict) else each for each in rows))
    return path


def lines_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    speaking(folder)
    return folder


@pytest.fixture
def command(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(name: str, *flags: str) -> int:
        return cli.main([name, "rows.jsonl", "--model", str(model), "-o", "out.jsonl", "--quiet", *flags])

    return run


def test_rows_come_out_in_order_with_their_columns_and_the_rewards_of_their_responses(model, command, tmp_path, capsys):
    made = [row(number) for number in range(70)]
    rows_file(tmp_path / "rows.jsonl", made)
    assert command("score") == 0
    out = lines_of(tmp_path / "out.jsonl")
    assert [{name: line[name] for name in ("id", "prompt", "responses")} for line in out] == made
    assert [line["rewards"] for line in out] == RewardModel.from_pretrained(model).score(made, quiet=True)
    said = capsys.readouterr()
    assert said.out == ""
    assert f"vlmpack: scoring 70 rows of rows.jsonl by {model}\n" in said.err
    assert said.err.rstrip().endswith(": out.jsonl")
    assert not (tmp_path / "out.jsonl.errors.jsonl").exists()


BAD = {
    3: ("nonsense\n", "line 5 is not JSON: Expecting value: line 1 column 1 (char 0)"),  # a blank line stands above
    6: ("[1, 2]\n", "line 8 is a list, not an object of columns"),
    34: ({"prompt": "What is there?", "responses": []}, "the row holds 0 responses; there is nothing to judge"),
    35: ({"prompt": "What is there?", "respones": ["x"]}, "columns ['prompt', 'respones'] are in no row format"),
    36: (
        {"prompt": "Hm", "response": "x", "image": "a.png"},
        "the row has images, and TokenizersBackend reads text only",
    ),
    37: ({"id": 7, "prompt": "Hm", "response": "x " * 300}, "row 7"),
}


def test_bad_rows_stand_in_their_places_with_what_is_wrong_and_take_no_others_with_them(command, tmp_path, capsys):
    made = [BAD[number][0] if number in BAD else row(number) for number in range(40)]
    rows_file(tmp_path / "rows.jsonl", ["\n", *made])
    assert command("score", "--max-tokens", "200") == 0
    out = lines_of(tmp_path / "out.jsonl")
    assert len(out) == 40
    for number, line in enumerate(out):
        if number not in BAD:
            assert line["id"] == number and len(line["rewards"]) == 2 + number % 3 and "error" not in line
            continue
        assert line["rewards"] is None
        if number != 37:
            assert line["error"].startswith(BAD[number][1])
    assert out[3]["line"] == "nonsense" and out[6]["line"] == "[1, 2]"
    assert "response 0 has 610 tokens" in out[37]["error"] and "more than max_tokens=200" in out[37]["error"]
    beside = lines_of(tmp_path / "out.jsonl.errors.jsonl")
    assert [each["row"] for each in beside] == list(BAD)
    assert "6 of 40 rows could not be scored; their lines say why, and so does out.jsonl.errors.jsonl:" in (
        capsys.readouterr().err
    )


def test_a_row_may_hold_one_response_a_pair_or_scores(command, tmp_path):
    made = [
        {"prompt": "What is there?", "response": "red ring"},
        {"prompt": "What is there?", "chosen": "red ring", "rejected": "blue ring"},
        {"prompt": "What is there?", "responses": ["red ring", "blue ring"], "scores": [1, 0]},
    ]
    rows_file(tmp_path / "rows.jsonl", made)
    assert command("score") == 0
    one, pair, scored = lines_of(tmp_path / "out.jsonl")
    assert one["rewards"] == pair["rewards"][:1]
    assert pair["rewards"] == scored["rewards"] and scored["scores"] == [1, 0]


def test_columns_of_which_nothing_is_to_be_read_are_named(command, tmp_path):
    rows_file(tmp_path / "rows.jsonl", [{**row(0), "note": 1}])
    command("score")
    assert lines_of(tmp_path / "out.jsonl")[0]["error"].startswith("row 0: column 'note' is unknown")
    command("score", "--ignore", "note", "--overwrite")
    assert lines_of(tmp_path / "out.jsonl")[0]["note"] == 1


def test_rank_names_the_best_first(command, tmp_path):
    rows_file(tmp_path / "rows.jsonl", [row(number) for number in range(5)])
    assert command("rank", "--top", "2") == 0
    for line in lines_of(tmp_path / "out.jsonl"):
        order = sorted(range(len(line["rewards"])), key=lambda k: line["rewards"][k], reverse=True)
        assert line["ranking"] == order[:2]
        assert line["best"] == line["responses"][order[0]]


def test_gzip_and_other_files_are_read_too(command, tmp_path, monkeypatch):
    made = [row(number) for number in range(4)]
    rows_file(tmp_path / "rows.jsonl", made)
    command("score")
    expected = [line["rewards"] for line in lines_of(tmp_path / "out.jsonl")]
    with gzip.open(tmp_path / "rows.jsonl.gz", "wt") as file:
        file.write((tmp_path / "rows.jsonl").read_text())
    (tmp_path / "rows.json").write_text(json.dumps(made))
    for name in ("rows.jsonl.gz", "rows.json"):
        model = json.loads((tmp_path / "out.jsonl.run.json").read_text())["model"]
        assert cli.main(["score", name, "--model", model, "-o", f"{name}.out", "--quiet"]) == 0
        assert [line["rewards"] for line in lines_of(tmp_path / f"{name}.out")] == expected


def test_normalised_rewards_are_written_unless_raw_ones_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = speaking()
    made = [row(number) for number in range(10)]
    model.normalize(made, quiet=True)
    model.save_pretrained("model")
    rows_file(tmp_path / "rows.jsonl", made)
    shown, raw = [], []
    for flags, into in (([], shown), (["--raw", "--overwrite"], raw)):
        cli.main(["score", "rows.jsonl", "--model", "model", "-o", "out.jsonl", "--quiet", *flags])
        into += [reward for line in lines_of(tmp_path / "out.jsonl") for reward in line["rewards"]]
    assert abs(sum(shown) / len(shown)) < 1e-6
    assert sum(reward**2 for reward in shown) / len(shown) == pytest.approx(1, abs=1e-6)
    assert shown == pytest.approx([(r - model.config.reward_mean) / model.config.reward_std for r in raw], abs=1e-9)


# ---- killed and resumed


def test_what_a_killed_run_left_is_gone_on_with_to_the_same_bytes(command, tmp_path):
    rows_file(tmp_path / "rows.jsonl", [row(number) for number in range(100)])
    command("score")
    whole = (tmp_path / "out.jsonl").read_bytes()
    ends = [place for place, byte in enumerate(whole) if byte == ord("\n")]
    for cut in (0, 5, ends[10] + 1, ends[31] + 1, ends[63] + 20, ends[98] + 1, len(whole) - 1, len(whole)):
        (tmp_path / "out.jsonl").write_bytes(whole[:cut])
        command("score")
        assert (tmp_path / "out.jsonl").read_bytes() == whole, cut


def test_whole_windows_are_kept_and_not_computed_again(tmp_path):
    path, run = tmp_path / "out.jsonl", {"model": "m"}
    output = ResumedOutput(path, run, 4, 10)
    output.write([{"k": k} for k in range(4)])
    output.write([{"k": k} for k in range(4, 7)])  # killed inside a window: these are computed together with the next
    output.close()
    again = ResumedOutput(path, run, 4, 10)
    assert again.lines == 4
    again.write([{"k": k} for k in range(4, 8)])
    again.write([{"k": 8}, {"k": 9}])
    again.close()
    assert [line["k"] for line in lines_of(path)] == list(range(10))
    assert ResumedOutput(path, run, 4, 10).lines == 10  # all are there, though the last window is short


@pytest.mark.parametrize("change", [["--max-length", "100"], ["--raw"], ["--ignore", "note"]])
def test_another_run_s_output_is_not_gone_on_with(change, command, tmp_path, capsys):
    rows_file(tmp_path / "rows.jsonl", [row(0)])
    command("score")
    assert command("score", *change) == 2
    name = change[0].removeprefix("--").replace("-", "_")
    assert f"out.jsonl was written by a run with other {name}; name another file, or give --overwrite" in (
        capsys.readouterr().err
    )
    assert command("score", *change, "--overwrite") == 0
    assert command("rank") == 2


def test_rows_that_changed_are_not_taken_for_those_that_are_done(command, tmp_path, capsys):
    made = [{**row(number), "tags": float("nan")} for number in range(40)]  # which equals nothing, not even itself
    rows_file(tmp_path / "rows.jsonl", made)
    command("score")
    rows_file(tmp_path / "rows.jsonl", [*made, row(40)])  # more may come
    assert command("score") == 0 and len(lines_of(tmp_path / "out.jsonl")) == 41
    rows_file(tmp_path / "rows.jsonl", [*made[:5], {**made[5], "prompt": "Else?"}, *made[6:], row(40)])
    assert command("score") == 2
    assert "row 5 is not the one that out.jsonl was written for" in capsys.readouterr().err
    rows_file(tmp_path / "rows.jsonl", made[:9])
    assert command("score") == 2
    assert "name another file, or give --overwrite" in capsys.readouterr().err


def test_lines_that_failed_are_scored_again_without_their_old_error(command, tmp_path):
    rows_file(tmp_path / "rows.jsonl", [{**row(0), "rewards": None, "error": "it was late"}])
    assert command("score", "--ignore", "error", "rewards") == 0
    (line,) = lines_of(tmp_path / "out.jsonl")
    assert "error" not in line and len(line["rewards"]) == 2


def test_brackets_without_end_and_other_encodings_are_bad_lines(command, tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(
        b"[" * 100_000 + b"\n" + "[1]".encode("utf-16") + b"\n" + b'{"prompt": "a", "response": "b"}\n'
    )
    assert command("score") == 0
    deep, other, good = lines_of(tmp_path / "out.jsonl")
    assert deep["error"] and other["error"] and good["rewards"]


def test_a_file_of_somebody_else_s_is_left_alone(command, tmp_path, capsys):
    rows_file(tmp_path / "rows.jsonl", [row(0)])
    (tmp_path / "out.jsonl").write_text("dear diary\n")
    assert command("score") == 2
    assert "out.jsonl was written by something else" in capsys.readouterr().err
    assert (tmp_path / "out.jsonl").read_text() == "dear diary\n"


def test_two_runs_do_not_write_one_file(command, tmp_path, capsys):
    rows_file(tmp_path / "rows.jsonl", [row(0)])
    command("score")
    run = json.loads((tmp_path / "out.jsonl.run.json").read_text())
    other = ResumedOutput(tmp_path / "out.jsonl", run, 32, 1)
    assert command("score") == 2
    assert "another run is writing out.jsonl" in capsys.readouterr().err
    other.close()
    assert command("score") == 0


@pytest.mark.slow
def test_ten_thousand_rows_killed_twice_come_out_in_order_none_twice(model, tmp_path):
    rows_file(tmp_path / "rows.jsonl", [row(number) for number in range(10_000)])
    run = [sys.executable, "-m", "vlmpack.cli", "score", str(tmp_path / "rows.jsonl"), "--model", str(model)]
    out = tmp_path / "out.jsonl"
    written = []
    for most in (2_500, 6_500):
        process = subprocess.Popen([*run, "-o", str(out), "--quiet"], stderr=subprocess.DEVNULL)
        while not out.exists() or out.read_bytes().count(b"\n") < most:
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        written.append(out.read_bytes().count(b"\n"))
    assert 2_500 <= written[0] < written[1] < 10_000
    last = subprocess.run([*run, "-o", str(out), "--quiet"], capture_output=True, text=True)
    assert last.returncode == 0 and "rows are done already" in last.stderr
    assert [line["id"] for line in lines_of(out)] == list(range(10_000))
    assert all(len(line["rewards"]) == len(line["responses"]) for line in lines_of(out))
    alone = subprocess.run([*run, "-o", str(tmp_path / "alone.jsonl"), "--quiet", "--workers", "2"])
    assert alone.returncode == 0
    assert (tmp_path / "alone.jsonl").read_bytes() == out.read_bytes()


# ---- what cannot be run


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["gone.jsonl", "--model", "{model}", "-o", "o.jsonl"], "gone.jsonl does not exist; give a file of rows"),
        (["rows.jsonl", "--model", "gone", "-o", "o.jsonl"], "the reward model gone cannot be loaded"),
        (["rows.jsonl", "--model", "{model}", "-o", "no/o.jsonl"], "no/o.jsonl cannot be written: there is no folder"),
        (["rows.jsonl", "--model", "{model}", "-o", "rows.jsonl"], "rows.jsonl holds the rows; name another file"),
        (["rows.jsonl", "--model", "{model}", "-o", "o.jsonl", "--max-tokens", "0"], "--max-tokens 0 holds nothing"),
        (["rows.jsonl", "--model", "{model}", "-o", "o.jsonl", "--attention", "magic"], "--attention magic is none of"),
        (
            ["rows.jsonl", "--model", "{model}", "-o", "o.jsonl", "--device", "cuda:99"],
            "--device cuda:99 cannot be used",
        ),
    ],
)
def test_what_cannot_be_run_is_said_in_a_line(flags, message, model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows_file(tmp_path / "rows.jsonl", [row(0)])
    assert cli.main(["score", *[flag.format(model=model) for flag in flags], "--quiet"]) == 2
    assert f"vlmpack: {message}" in capsys.readouterr().err
    assert (tmp_path / "rows.jsonl").read_text().count("\n") == 1


def test_a_model_without_a_head_is_not_a_reward_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows_file(tmp_path / "rows.jsonl", [row(0)])
    reward_model = speaking()
    reward_model.model.save_pretrained("plain")
    reward_model.processor.save_pretrained("plain")
    assert cli.main(["score", "rows.jsonl", "--model", "plain", "-o", "o.jsonl", "--quiet"]) == 2
    assert "plain is no reward model: its head would be random; train one first" in capsys.readouterr().err
