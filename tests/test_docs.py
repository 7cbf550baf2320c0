"""The pages of docs/ and the README: their code runs, and what they name is there."""

import ast
import importlib
import re
import shlex
import sys
from dataclasses import fields
from functools import cache
from inspect import signature
from pathlib import Path

import documents
import pytest

import vlmpack
from vlmpack import cli, inspect
from vlmpack.processors import PreferenceProcessorConfig
from vlmpack.training.preference_trainer import PreferenceTrainer
from vlmpack.training.restore import RestoringTrainer

ROOT, PAGES = documents.ROOT, documents.PAGES
CONFIGS = {"DPOConfig": vlmpack.DPOConfig, "RewardConfig": vlmpack.RewardConfig}
FIELDS = {name: {each.name for each in fields(config)} for name, config in CONFIGS.items()}
OF_DPO = {"precompute_ref_log_probs", "ref_log_probs_folder"}  # which the section that names them says
CALLED = (
    vlmpack.enable,
    vlmpack.pack,
    inspect.draw,
    inspect.attention_weights,
    RestoringTrainer.train,
    PreferenceTrainer,
)
ELSEWHERE = {
    "streaming",  # of datasets' load_dataset
    *("r", "lora_alpha", "target_modules", "modules_to_save"),  # of peft's LoraConfig
    "dtype",  # of from_pretrained
}

pages = pytest.mark.parametrize("page", PAGES)


@pytest.fixture(scope="module")
def furnished(tmp_path_factory):
    return documents.furnish(tmp_path_factory.mktemp("docs"))


@pytest.mark.parametrize("page", [page for page in PAGES if page != "README.md" and documents.blocks(page, "python")])
def test_python_blocks_run_in_order(page, furnished, monkeypatch):
    monkeypatch.chdir(furnished)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", furnished / "cache")
    documents.run(page)


@pages
def test_every_block_is_of_a_kind_that_is_checked_and_fragments_are_python(page):
    kinds = {info for info, _ in documents.FENCED.findall(PAGES[page])}
    assert kinds <= {"python", "python fragment", "bash", "json", "text", "text elsewhere"}
    for text in documents.blocks(page, "python fragment"):
        ast.parse(text)


@pages
def test_every_row_of_a_table_has_the_cells_of_its_head(page):
    for table in re.findall(r"(?:^\|.*\n)+", documents.FENCED.sub("", PAGES[page]), re.MULTILINE):
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(cells) == 1, table


@pages
def test_every_link_and_picture_leads_somewhere(page):
    for link in documents.links(page):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in documents.anchors(target.read_text()), link


@pages
def test_every_file_that_is_named_is_there(page):
    named = re.findall(r"\b(?:examples|processors|tests|assets|vlmpack)/[\w/]+\.(?:py|md|yaml|ipynb)\b", PAGES[page])
    for path in [
        *named,
        *(f"examples/benchmarks/{name}" for name in _in_first_columns(page, "`examples/benchmarks/`")),
    ]:
        assert (ROOT / path).exists(), path


def flags_of(program: list[str], monkeypatch, capsys) -> set[str]:
    """What a command's own help names; parsers are built in this process, which has imported all already."""
    if program[0] == "vlmpack":
        main, arguments = cli.main, [program[1], "--help"]
    else:
        folder = (ROOT / program[1]).parent
        monkeypatch.syspath_prepend(str(folder))
        main, arguments = importlib.import_module(Path(program[1]).stem).main, ["--help"]
    monkeypatch.setattr(sys, "argv", [program[-1], *arguments])
    with pytest.raises(SystemExit, match="^0$"):
        main(arguments) if signature(main).parameters else main()
    return set(re.findall(r"(--[\w-]+)", capsys.readouterr().out))


def programs() -> dict[tuple[str, ...], set[str]]:
    """The programs that shell blocks name, and the flags that they are given."""
    found: dict[tuple[str, ...], set[str]] = {}
    for _, line in documents.commands():
        words = shlex.split(line)
        if words[:2] == ["accelerate", "launch"]:  # its own flag comes first, and names a file
            assert (ROOT / words[3]).is_file(), line
            words = ["python", *words[4:]]
        if words[0] in ("vlmpack", "python"):
            flags = {word for word in words if word.startswith("--")}
            found[tuple(words[:2])] = found.get(tuple(words[:2]), set()) | flags
    return found


@pytest.mark.parametrize("program", programs(), ids=" ".join)
def test_every_flag_that_is_named_is_one_of_the_command(program, monkeypatch, capsys):
    assert programs()[program] <= flags_of(list(program), monkeypatch, capsys)


def test_flags_that_are_named_in_text_belong_to_some_command(monkeypatch, capsys):
    known = set().union(*(flags_of(list(program), monkeypatch, capsys) for program in programs()))
    text = "\n".join(documents.FENCED.sub("", each) for each in PAGES.values())
    known |= flags_of(["python", "examples/census.py"], monkeypatch, capsys)
    assert set(re.findall(r"`(?:[\w./ ]+ )?(--[\w-]+)`", text)) <= known


def _in_first_columns(page: str, head: str) -> list[str]:
    """What stands as code in the first column of a page's tables with that head."""
    tables = re.findall(rf"^\| {re.escape(head)} \|.*\n\|[-|: ]+\n((?:\|.*\n)+)", PAGES[page], re.MULTILINE)
    return [
        code for table in tables for line in table.splitlines() for code in re.findall(r"`([^`]+)`", line.split("|")[1])
    ]


def test_every_setting_of_a_table_is_one_of_the_configurations():
    named = [name for page in PAGES for name in _in_first_columns(page, "setting")]
    assert len(named) > 20
    for name in named:
        config, _, field = name.rpartition(".")
        known = FIELDS[config] if config else FIELDS["DPOConfig"] & FIELDS["RewardConfig"] | OF_DPO
        assert field in known, name


@pages
def test_every_argument_that_is_named_with_a_value_is_known(page):
    """`name=value` in the text: of a configuration, or of something public."""
    known = set.union(*FIELDS.values()) | {each.name for each in fields(PreferenceProcessorConfig)} | ELSEWHERE
    for call in CALLED:
        known |= set(signature(call).parameters)
    text = documents.FENCED.sub("", PAGES[page])
    named = {name for code in re.findall(r"`([^`\n]+)`", text) for name in re.findall(r"(?<![\w.])(\w+)=(?!=)", code)}
    assert named <= known


@cache
def templates() -> list[str]:
    """Every text in the source, with a mark for each value that is put into it and single spaces."""
    found = []
    for folder in ("vlmpack", "processors", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    found.append(
                        "".join(each.value if isinstance(each, ast.Constant) else "\0" for each in node.values)
                    )
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return [" ".join(text.split()) for text in found]


@pytest.mark.parametrize("message", documents.blocks("docs/troubleshooting.md", "text"), ids=lambda text: text[:60])
def test_every_message_that_is_quoted_is_in_the_source(message):
    fixed = [" ".join(part.split()) for part in message.split("...")]
    pattern = re.compile(".*".join(map(re.escape, fixed)))
    assert sum(map(len, fixed)) > 20  # else it would be found anywhere
    assert any(pattern.search(text) for text in templates()), message


def test_each_page_is_linked_from_the_readme_and_has_the_same_line_of_links():
    names = [page for page in PAGES if page != "README.md"]
    assert set(names) <= set(documents.links("README.md"))
    for page in names:
        line = PAGES[page].splitlines()[2]
        others = {f"{Path(name).name}" for name in names} - {Path(page).name}
        assert others | {"../README.md"} == set(re.findall(r"\]\(([^)]+)\)", line)), page
