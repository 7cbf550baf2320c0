"""`vlmpack plan`: from a data set and a configuration to a table of what training will cost, and what to set."""

import json
import re
import subprocess
import sys

import pytest
from transformers import AutoConfig

import scenes
from vlmpack import cli, pack
from vlmpack.processors import PreferenceProcessor, PreferenceProcessorConfig
from vlmpack.training.config import DPOConfig

PICTURES = 3  # with four questions each


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Lengths that were measured are kept; not between tests."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a configuration and a processor, and no weights."""
    folder = tmp_path_factory.mktemp("model")
    processor = scenes.processor()
    scenes.llava_config(processor).save_pretrained(folder)
    processor.save_pretrained(folder)
    assert not list(folder.glob("*.safetensors"))
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Twelve rows in a file with their pictures beside it."""
    folder, rows = tmp_path_factory.mktemp("data"), []
    for number, row in enumerate(scenes.rows(PICTURES, seed=0)):
        name = f"{number // 4}.png"
        row["images"][0].save(folder / name)
        rows.append({**row, "images": [name]})
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "rows.jsonl"


def cells(out: str) -> dict[str, list[str]]:
    """The table's lines by cell."""
    lines = [re.split(r"  +", line) for line in out.splitlines()]
    head = next(place for place, line in enumerate(lines) if line[0] == "cell")
    return {line[0]: line[1:] for line in lines[head : head + 9]}


def test_a_plan_says_what_is_planned_what_each_cell_costs_and_what_to_set(model, dataset, capsys):
    flags = ["--batch-size", "6", "--max-tokens", "400", "--max-length", "120"]
    assert cli.main(["plan", str(dataset), "--model", str(model), *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        f"vlmpack: planning an epoch of {model} on {dataset}, 6 prompts a step, packs of at most 400 tokens; "
        f"nothing is trained"
    )
    table = cells("\n".join(lines))
    assert list(table)[1:] == [
        "padded pairs",
        "vanilla",
        "sorting",
        "packing",
        "both",
        "bins",
        "trees",
        "trees, by image",
    ]
    assert table["cell"][:6] == ["tokens", "padding", "vision", "FLOPs", "packs/step", "peak"]
    assert [each[2] for each in table.values()][1:4] == ["120", "48", "48"]  # 5 pairs and 4 responses a question
    assert table["packing"][2] == "12"
    assert table["trees, by image"][2] < table["trees"][2] <= "9"
    assert table["padded pairs"][6] == table["vanilla"][7] == "1.00"
    assert float(table["trees, by image"][6]) > float(table["bins"][6]) > 2
    about = "one epoch of 12 prompts, 48 responses, 60 pairs, 12 images; 2 optimizer steps; FLOPs of forward passes"
    assert about in lines
    assert lines[-1].startswith("best: trees, by image (")


def test_what_it_says_to_set_can_be_set(model, dataset, capsys, tmp_path):
    flags = ["--max-tokens", "600", "--pairing", "best"]
    assert cli.main(["plan", str(dataset), "--model", str(model), *flags]) == 0
    said = re.search(r"DPOConfig\((.*)\)$", capsys.readouterr().out.strip().splitlines()[-1])[1]
    args = eval(f"DPOConfig(output_dir={str(tmp_path)!r}, report_to=[], {said})", {"DPOConfig": DPOConfig})
    assert (args.max_tokens, args.pairing, args.per_device_train_batch_size) == (600, "best", 32)


def test_the_tokens_are_those_of_the_packs(model, dataset, capsys):
    assert cli.main(["plan", str(dataset), "--model", str(model / "config.json")]) == 0
    config = PreferenceProcessorConfig(image_root=dataset.parent)
    processor = PreferenceProcessor.from_pretrained(str(model), config)
    samples = [processor(json.loads(line)) for line in dataset.read_text().splitlines()]
    found = cells(capsys.readouterr().out)
    (apart,), (together,) = (pack(samples, sharing=sharing) for sharing in ("prompt", "all"))
    assert [found["bins"][0], found["bins"][2]] == [str(apart.tokens), str(apart.vision_passes)]
    assert found["trees"][2] == str(together.vision_passes)
    assert apart.tokens > int(found["trees"][0]) >= together.tokens  # questions that begin alike are not foretold


def test_without_a_model_tokens_are_counted(model, dataset, capsys):
    assert cli.main(["plan", str(dataset), "--tokenizer", str(model), "--limit", "4"]) == 0
    out = capsys.readouterr().out
    assert "planning an epoch of any model" in out
    assert "one epoch of 4 prompts" in out
    assert "no --model was given: FLOPs stand for tokens alone" in out
    found = cells(out)
    assert float(found["vanilla"][3]) == pytest.approx(int(found["vanilla"][0].replace(",", "")), rel=0.01)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "without a tokenizer; give --model, or --tokenizer"),
        (["--model", "MODEL", "--batch-size", "0"], "--batch-size 0 leaves nothing to plan"),
        (["--model", "/no/such/model"], "there is no /no/such/model; give a hub id"),
        (["--tokenizer", "/no/such/model"], "/no/such/model has no processor or tokenizer; name one with --tokenizer"),
        (["--model", "MODEL", "--max-tokens", "40"], "Set max_tokens="),
        (["--model", "MODEL", "--image-root", "/no/such/folder"], "12 of 12 rows of the training data set cannot"),
    ],
    ids=["no tokenizer", "no prompts", "no model", "no processor", "small packs", "no images"],
)
def test_what_is_wrong_is_said_without_a_traceback(model, dataset, flags, message, capsys):
    flags = [str(model) if flag == "MODEL" else flag for flag in flags]
    assert cli.main(["plan", str(dataset), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_data_set_that_is_not_there_exits_with_2(model, capsys):
    assert cli.main(["plan", "nothing.jsonl", "--model", str(model)]) == 2
    assert "vlmpack: nothing.jsonl does not exist" in capsys.readouterr().err


def test_a_model_without_a_processor_is_planned_with_another_tokenizer(model, dataset, tmp_path, capsys):
    AutoConfig.from_pretrained(model).save_pretrained(tmp_path)
    assert cli.main(["plan", str(dataset), "--model", str(tmp_path)]) == 2
    assert f"{tmp_path} has no processor or tokenizer" in capsys.readouterr().err
    assert cli.main(["plan", str(dataset), "--model", str(tmp_path), "--tokenizer", str(model)]) == 0


def test_a_mistake_of_our_own_keeps_its_traceback(model, dataset, monkeypatch):
    def broken(*arguments, **options):
        raise ValueError("of another kind")

    monkeypatch.setattr("vlmpack.costs.forecast.forecast", broken)
    with pytest.raises(ValueError, match="of another kind"):
        cli.main(["plan", str(dataset), "--model", str(model)])


def test_help_is_there_without_transformers():
    script = "import sys; from vlmpack import cli\ntry: cli.main(['plan', '--help'])\nexcept SystemExit: print('transformers' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "--image-root" in result.stdout
    assert result.stdout.strip().endswith("False")
