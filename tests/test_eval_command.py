"""`vlmpack eval`: from a benchmark as it is published and a reward model to a table and a file of results."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset, DatasetDict, Features, Image, Sequence, Value
from transformers import CLIPImageProcessor, LlavaForConditionalGeneration

import scenes
from vlmpack import RewardModel, cli
from vlmpack.scored import Scored


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Results go into the folder we are in, and what is read is kept for this test alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def scorer(monkeypatch):
    """A scorer that finds the longer response better, and cannot read prompts that say "broken"."""

    def scored(rows, total=None):
        fake.asked, fake.total = list(rows), total
        for place, row in enumerate(fake.asked):
            responses = row.get("responses") or [row["chosen"], row["rejected"]]
            better = row["scores"].index(1.0) if "scores" in row else 0
            rewards, error = tuple(float(len(each)) for each in responses), ""
            if "broken" in row["prompt"]:
                rewards, error = (), "image x.png does not exist"
            yield Scored(place, rewards, error, ((better, 1 - better),), image_tokens=576 * len(row.get("images", ())))

    images = CLIPImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    processor = SimpleNamespace(processor=SimpleNamespace(image_processor=images))
    fake = SimpleNamespace(scored=scored, processor=processor, model=torch.nn.Linear(1, 1), args=None)
    monkeypatch.setattr("vlmpack.commands.eval.scorer_of", lambda args: setattr(fake, "args", args) or fake)
    return fake


VL_ROWS = [
    {"id": "wildvision_1", "query": "<image>\nWhat?", "response": ["long", "no"], "human_ranking": [0, 1]},
    {"id": "RLHF-2", "query": "What?", "response": ["a", "long"], "human_ranking": [0, 1]},
    {"id": "RLAIF-3", "query": "What?", "response": ["a", "long"], "human_ranking": [1, 0]},
    {"id": "mmmu_4", "query": "What?", "response": ["same", "size"], "human_ranking": [0, 1]},
    {"id": "mmmu_5", "query": "broken", "response": ["same", "size"], "human_ranking": [0, 1]},
    {"id": "mathverse_6", "query": "What?", "response": ["long", "no"], "human_ranking": [1, 1]},
]


def file_of(path, rows, **columns):
    path.write_text("\n".join(json.dumps({**columns, **row}) for row in rows))
    return str(path)


@pytest.fixture
def vl_rows(tmp_path):
    return file_of(tmp_path / "vl.jsonl", VL_ROWS, image="x.png")


def run(*arguments) -> int:
    return cli.main(["eval", *map(str, arguments), "--model", "some/model"])


def test_what_is_done_what_came_of_it_and_where_it_is_kept_is_said(vl_rows, scorer, capsys, tmp_path):
    assert run(vl_rows, "--benchmark", "vl_rewardbench") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"vlmpack: evaluating some/model on vl_rewardbench: {vl_rows}",
        "images: size shortest_edge 336, crop_size 336 x 336",
        "group            right  of  accuracy  not scored",
        "general              1   1   100.00%",
        "hallucination        1   2    50.00%",
        "reasoning            0   1     0.00%           2",
        "overall (micro)      2   4    50.00%           2",
        "macro                         50.00%",
        "macro: the mean of general, hallucination, reasoning",
        "rows: 6, scored: 4, not scored: 2; pairs: 4, tied, and so wrong: 1",
        "image tokens a row: 576.0 on average, 576 at most",
        "2 of 6 rows could not be scored. The averages leave them out, so they are not comparable with published "
        "figures:",
        "  row 4 (mmmu_5): image x.png does not exist",
        "  row 5 (mathverse_6): 'human_ranking' is [1, 1], neither [0, 1] nor [1, 0]",
        "results: eval_vl_rewardbench.json",
    ]
    assert (scorer.total, len(scorer.asked), scorer.args.image_root) == (6, 5, str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "eval_vl_rewardbench.json", "vl.jsonl"]


def test_the_file_says_what_one_must_know_to_compare(vl_rows, scorer, tmp_path):
    flags = ["--max-length", "77", "--output", tmp_path / "out.json"]
    assert run(vl_rows, "--benchmark", "vl_rewardbench", *flags) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    assert (found["benchmark"], found["dataset"], found["model"]) == ("vl_rewardbench", vl_rows, "some/model")
    assert (found["split"], found["limit"]) == (None, None)
    assert set(found["versions"]) == {"torch", "transformers", "vlmpack"}
    assert torch.__version__.startswith(found["versions"]["torch"])
    assert found["scoring"]["max_length"] == 77
    assert (found["scoring"]["dtype"], found["scoring"]["device"]) == ("float32", "cpu")
    assert found["pixel_budget"]["crop_size"] == {"height": 336, "width": 336}
    assert found["date"].endswith("+00:00")
    assert found["averages"] == {"micro": 0.5, "macro": 0.5}
    assert [(each["row"], each["id"]) for each in found["not_scored"]] == [(4, "mmmu_5"), (5, "mathverse_6")]
    assert found["rows"][1] == {
        "row": 1,
        "id": "RLHF-2",
        "group": "hallucination",
        "rewards": [1.0, 4.0],
        "right": 0,
        "of": 1,
    }


def test_limit_takes_the_first_rows_alone_and_says_so(vl_rows, scorer, capsys):
    assert run(vl_rows, "--benchmark", "vl_rewardbench", "--limit", 2) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].endswith("vl.jsonl, the first 2 rows")
    assert "rows: 2, scored: 2, not scored: 0" in out
    assert run(vl_rows, "--benchmark", "vl_rewardbench", "--limit", 99) == 0
    assert "rows: 6, scored: 4" in capsys.readouterr().out


def test_rows_of_any_format_are_the_benchmark_unless_another_is_named(scorer, tmp_path, capsys):
    rows = [
        {"id": 1, "prompt": "p", "chosen": "long", "rejected": "no", "source": "a"},
        {"id": 2, "prompt": "p", "chosen": "no", "rejected": "long", "source": "b"},
    ]
    assert run(file_of(tmp_path / "rows.jsonl", rows)) == 0
    out = capsys.readouterr().out
    assert "on rows: " in out
    assert "macro: the mean of a, b" in out
    assert "image tokens a row: none, text only" in out
    assert scorer.asked[0] == {"prompt": "p", "chosen": "long", "rejected": "no"}
    assert (tmp_path / "eval_rows.json").exists()


def test_a_data_set_that_is_not_named_is_that_of_the_hub(scorer, monkeypatch, capsys):
    asked = []

    def load_rows(source, split):
        asked.append((source, split))
        return Dataset.from_list([{**row, "image": {"bytes": b"", "path": None}} for row in VL_ROWS[:2]])

    monkeypatch.setattr("vlmpack.processors.load_rows", load_rows)
    assert run("--benchmark", "vl_rewardbench") == 0
    out = capsys.readouterr().out
    assert "on vl_rewardbench: MMInstruction/VL-RewardBench, split test" in out
    assert run("--benchmark", "vl_rewardbench", "--split", "train") == 0
    assert asked == [("MMInstruction/VL-RewardBench", split) for split in ("test", "train")]
    assert scorer.args.image_root is None


def test_a_saved_data_set_is_read_and_its_split_is_said_if_it_has_several(scorer, tmp_path, capsys):
    rows = Dataset.from_list([{"prompt": "p", "chosen": "long", "rejected": "no", "subset": "mine"}])
    rows.save_to_disk(tmp_path / "one")
    DatasetDict({"filtered": rows, "raw": rows}).save_to_disk(tmp_path / "two")
    assert run(tmp_path / "one", "--benchmark", "rewardbench") == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("one")
    assert run(tmp_path / "two", "--benchmark", "rewardbench") == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("two, split filtered")
    assert json.loads((tmp_path / "eval_rewardbench.json").read_text())["split"] == "filtered"
    assert run(tmp_path / "two", "--benchmark", "rewardbench", "--split", "no") == 2
    assert "two has no split 'no'; it has filtered, raw" in capsys.readouterr().err


def test_a_hub_that_cannot_be_reached_is_said_without_a_traceback(scorer, monkeypatch, capsys):
    def load_rows(source, split):
        raise ConnectionError("no route")

    monkeypatch.setattr("vlmpack.processors.load_rows", load_rows)
    assert run("--benchmark", "rewardbench") == 2
    error = capsys.readouterr().err
    assert "allenai/reward-bench, split filtered, cannot be loaded; name a local copy as DATASET\nno route" in error


def test_the_answers_are_written_for_the_official_script(scorer, tmp_path, capsys):
    rows = [
        {"ID": "PAIRS_1", "Category": "safety", "Text": "p", "Output1": "long", "Output2": "no", "Better": "Output1"},
        {"ID": "x_2", "Category": "vqa", "Text": "p", "Output1": "long", "Output2": "no", "Better": "Output2"},
        {"ID": "x_3", "Category": "vqa", "Text": "broken", "Output1": "a", "Output2": "b", "Better": "Output2"},
        {"ID": "x_4", "Category": "vqa", "Text": "p", "Output1": "a", "Output2": "b", "Better": "Output2"},
    ]
    (tmp_path / "all_data.json").write_text(json.dumps([{**row, "Image": "images/x.png"} for row in rows]))
    flags = ["--benchmark", "multimodal_rewardbench", "--answers", tmp_path / "answers.jsonl"]
    assert run(tmp_path / "all_data.json", *flags) == 0
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [(each["ID"], each["Label"], each["output"][-5:], each["Meta"]) for each in lines] == [
        ("PAIRS_1", "A", "[[A]]", {"Category": "safety"}),
        ("x_2", "B", "[[A]]", {"Category": "vqa"}),
        ("x_4", "B", "[[A]]", {"Category": "vqa"}),
    ]
    out = capsys.readouterr().out.splitlines()
    assert out[-2] == f"answers: {tmp_path / 'answers.jsonl'}; left out, for they could not be scored: 1"


def test_nothing_scored_exits_with_1_and_keeps_the_reasons(scorer, tmp_path, capsys):
    path = file_of(tmp_path / "rows.jsonl", [{"prompt": "broken", "chosen": "a", "rejected": "b"}])
    assert run(path) == 1
    out = capsys.readouterr().out
    assert "1 of 1 rows could not be scored" in out
    assert "macro: there is nothing to average" in out
    assert json.loads((tmp_path / "eval_rows.json").read_text())["averages"] == {"micro": None, "macro": None}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--benchmark", "multimodal_rewardbench"],
            "multimodal_rewardbench has no data set on the hub; name a DATASET",
        ),
        ([], "rows has no data set on the hub; name a DATASET: a file of rows"),
        (["--benchmark", "mm_rlhf_rewardbench"], "names image files without holding them"),
        (["VL", "--limit", "0"], "--limit 0 leaves nothing to evaluate"),
        (["VL", "--output", "no/such/folder.json"], "no/such/folder.json cannot be written: there is no folder"),
        (["VL", "--output", "."], ". cannot be written: it is a folder"),
        (["VL", "--benchmark", "vl_rewardbench", "--answers", "a"], "--answers: vl_rewardbench has no such file"),
        (
            ["VL", "--benchmark", "multimodal_rewardbench", "--answers", "x", "--output", "./x"],
            "--output and --answers both name x",
        ),
        (
            ["VL", "--benchmark", "multimodal_rewardbench", "--answers", "no/a"],
            "no/a cannot be written: there is no folder",
        ),
        (["nothing.jsonl", "--benchmark", "vl_rewardbench"], "nothing.jsonl does not exist"),
        (["empty.jsonl", "--benchmark", "vl_rewardbench"], "empty.jsonl is empty"),
        (["no_rows.json", "--benchmark", "vl_rewardbench"], "no_rows.json cannot be read"),
        (
            ["VL", "--benchmark", "rewardbench"],
            "the data set has no column 'prompt', 'chosen', 'rejected', 'subset', which rewardbench reads; it has",
        ),
    ],
)
def test_what_is_wrong_is_said_before_a_model_is_loaded(flags, message, vl_rows, monkeypatch, tmp_path, capsys):
    def too_early(args):
        raise AssertionError("the model is loaded")

    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "no_rows.json").write_text("[]")
    monkeypatch.setattr("vlmpack.commands.eval.scorer_of", too_early)
    assert run(*(vl_rows if flag == "VL" else flag for flag in flags)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_benchmark_that_nobody_knows_is_refused_with_those_there_are(capsys):
    with pytest.raises(SystemExit):
        run("--benchmark", "imagenet")
    error = capsys.readouterr().err
    assert "imagenet" in error
    assert "vl_rewardbench" in error


def test_results_that_cannot_be_written_leave_those_of_before(vl_rows, scorer, tmp_path, monkeypatch, capsys):
    (tmp_path / "eval_vl_rewardbench.json").write_text("of before")

    def full(path, *arguments, **options):
        with open(path, "w") as file:
            file.write("half")
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    assert run(vl_rows, "--benchmark", "vl_rewardbench") == 2
    assert "eval_vl_rewardbench.json cannot be written: disk full" in capsys.readouterr().err
    assert (tmp_path / "eval_vl_rewardbench.json").read_text() == "of before"
    assert not list(tmp_path.glob(".*.part"))


def test_help_is_there_without_transformers():
    script = "import sys; from vlmpack import cli\ntry: cli.main(['eval', '--help'])\nexcept SystemExit: print('transformers' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "--answers" in result.stdout
    assert result.stdout.strip().endswith("False")


# with a real model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a tiny reward model, its weights random, and a processor."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("reward")
    processor = scenes.processor()
    RewardModel.from_backbone(LlavaForConditionalGeneration(scenes.llava_config(processor))).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def oracle(model, rows, image_root=None) -> list[list[float]]:
    """Rewards, every response on its own."""
    from vlmpack import unpacked
    from vlmpack.processors import PreferenceProcessor, PreferenceProcessorConfig

    processor = PreferenceProcessor.from_pretrained(str(model), PreferenceProcessorConfig(image_root=image_root))
    with torch.no_grad():
        rewards = unpacked.rewards(RewardModel.from_pretrained(str(model)).eval(), [processor(row) for row in rows])
    return rewards.view(len(rows), 2).tolist()


def test_vl_rewardbench_with_a_real_model(model, tmp_path, capsys):
    pictures = [row for row in scenes.rows(4, seed=0) if row["id"].endswith("-0")]
    names = ["wildvision_0", "RLHF-1", "mmmu_2", "mathverse_3"]
    rows = [
        {
            "id": name,
            "query": f"<image>\n{row['prompt']}",
            "response": row["responses"][:2],
            "image": row["images"][0],
            "human_ranking": [1, 0],
        }
        for name, row in zip(names, pictures, strict=True)
    ]
    texts = {"id": Value("string"), "query": Value("string"), "response": Sequence(Value("string"))}
    features = Features({**texts, "image": Image(), "human_ranking": Sequence(Value("int64"))})
    Dataset.from_list(rows, features).to_parquet(tmp_path / "test.parquet")
    flags = ["--benchmark", "vl_rewardbench", "--model", str(model), "--quiet"]
    assert cli.main(["eval", str(tmp_path / "test.parquet"), *flags]) == 0
    out = capsys.readouterr().out
    assert "images: size shortest_edge 48, crop_size 48 x 48" in out
    assert "image tokens a row: 16.0 on average, 16 at most" in out
    found = json.loads((tmp_path / "eval_vl_rewardbench.json").read_text())
    expected = oracle(
        model,
        [
            {"images": row["images"], "prompt": row["prompt"], "chosen": row["responses"][0], "rejected": each}
            for row in pictures
            for each in row["responses"][1:2]
        ],
    )
    rewards = [each["rewards"] for each in found["rows"]]
    torch.testing.assert_close(torch.tensor(rewards), torch.tensor(expected), atol=1e-5, rtol=1e-4)
    assert [each["right"] for each in found["rows"]] == [int(second > first) for first, second in rewards]


def test_multimodal_rewardbench_with_a_real_model(model, tmp_path, capsys):
    pictures = [row for row in scenes.rows(3, seed=1) if row["id"].endswith("-0")]
    (tmp_path / "data" / "images").mkdir(parents=True)
    rows = []
    for place, row in enumerate(pictures):
        row["images"][0].save(tmp_path / "data" / "images" / f"{place}.png")
        first, second = row["responses"][:2]
        own = {"ID": f"mathvista_{place}", "Category": "reasoning", "Text": row["prompt"], "Better": "Output2"}
        rows.append({**own, "Output1": first, "Output2": second, "Image": f"images/{place}.png"})
    rows[2]["Image"] = "images/lost.png"
    (tmp_path / "data" / "all_data.json").write_text(json.dumps(rows))
    flags = ["--benchmark", "multimodal_rewardbench", "--model", str(model), "--answers", "answers.jsonl", "--quiet"]
    assert cli.main(["eval", str(tmp_path / "data" / "all_data.json"), *flags]) == 0
    out = capsys.readouterr().out
    assert "row 2 (mathvista_2): image images/lost.png does not exist" in out
    found = json.loads((tmp_path / "eval_multimodal_rewardbench.json").read_text())
    asked = [
        {"images": row["images"], "prompt": row["prompt"], "responses": row["responses"][:2], "scores": [0, 1]}
        for row in pictures[:2]
    ]
    rewards = torch.tensor([each["rewards"] for each in found["rows"]])
    torch.testing.assert_close(rewards, torch.tensor(oracle(model, asked)), atol=1e-5, rtol=1e-4)
    said = [json.loads(line)["output"][-5:] for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert said == ["[[B]]" if second > first else "[[A]]" for first, second in rewards.tolist()]
