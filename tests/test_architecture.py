"""The house: imports run one way, the package knows no processors, files and functions stay small."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted([*(ROOT / "vlmpack").rglob("*.py"), *(ROOT / "processors").rglob("*.py")])
FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc"}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("vlmpack", *parts) if parts[0] == "processors" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, *, at_import: bool = False) -> set[str]:
    """Modules that a file imports; those inside functions too, unless only import time counts."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in tree.body if at_import else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


GRAPH = {module_of(path): imported(path) & {module_of(each) for each in FILES} for path in FILES}
OWN_DOOR = {module: {"vlmpack", module, module.rpartition(".")[0]} for module in GRAPH}  # of the package it stands in
GRAPH = {module: targets - OWN_DOOR[module] for module, targets in GRAPH.items()}


def test_imports_run_one_way():
    waiting = {module: set(targets) for module, targets in GRAPH.items() if module != "vlmpack"}
    while waiting:
        free = {module for module, targets in waiting.items() if not targets & set(waiting)}
        assert free, f"these import each other in a circle: {sorted(waiting)}"
        waiting = {module: targets for module, targets in waiting.items() if module not in free}


def test_packages_stand_one_on_the_other():
    parts = ["training", "costs", "proof", "inspect", "quality", "evaluation", "commands"]
    upper = [f"vlmpack.{part}" for part in parts]
    below = {
        "vlmpack.training": upper[1:5],
        "vlmpack.quality": ["vlmpack.inspect"],  # its colours
        "vlmpack.commands": upper[:6],
        "vlmpack.cli": upper,
    }
    for module, targets in GRAPH.items():
        package = ".".join(module.split(".")[:2])  # of parts of a package too
        forbidden = [each for each in upper if each not in (package, *below.get(package, []))]
        for target in targets:
            assert not target.startswith(tuple(forbidden)), f"{module} imports {target}, which stands on it"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_only_processors_know_processors_and_nobody_the_folder_by_its_name(path):
    names = {name.split(".")[0] for name in imported(path)}
    assert "processors" not in names
    if path.is_relative_to(ROOT / "vlmpack") and not path.is_relative_to(ROOT / "vlmpack" / "commands"):
        assert not any(name.startswith("vlmpack.processors") for name in imported(path))


def test_commands_may_know_processors_because_nobody_knows_them():
    """They begin with rows as users have them: they stand above the package and its processors."""
    assert not [module for module, targets in GRAPH.items() if "vlmpack.cli" in targets]
    for path in (ROOT / "vlmpack" / "commands").glob("*.py"):
        assert not any(name.startswith("vlmpack.processors") for name in imported(path, at_import=True))


def test_a_model_finds_what_reads_its_rows_by_one_door():
    """`reading_rows.py` imports `vlmpack.processors`, which stand above it, by name when a model is asked about rows."""
    below = [path for path in FILES if path.is_relative_to(ROOT / "vlmpack") and "commands" not in path.parts]
    texts = {path.name: path.read_text() for path in below}
    assert [name for name, text in texts.items() if '"vlmpack.processors"' in text] == ["reading_rows.py"]


def test_what_is_looked_at_knows_its_looks_by_one_door():
    """`shown.py` imports `vlmpack.inspect` when it is asked, by name; nothing else below does."""
    below = [path for path in FILES if "inspect" not in path.parts]
    texts = {path.name: path.read_text() for path in below}
    doors = [name for name, text in texts.items() if "vlmpack.inspect" in text and "import_module" in text]
    assert doors == ["shown.py"]


def test_the_oracle_shares_nothing_with_what_it_judges():
    allowed = {"vlmpack.sample"}
    assert GRAPH["vlmpack.unpacked"] <= allowed


def test_only_model_knows_the_attention_hooks():
    for path in FILES:
        if path.name != "model.py":
            assert not any("AttentionInterface" in name or "masking_utils" in name for name in imported(path))


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_files_and_functions_stay_small(path):
    text = path.read_text()
    assert path.stem not in FORBIDDEN_NAMES
    assert len(text.splitlines()) <= 300
    assert text.startswith('"""')
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.body:
            documented = isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)
            body = node.body[1:] if documented and len(node.body) > 1 else node.body
            assert node.end_lineno - body[0].lineno < 35, f"{path.name}: {node.name} is long"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_what_is_public_is_documented(path):
    tree = ast.parse(path.read_text())
    definitions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    inner = {
        id(child)
        for node in definitions
        if isinstance(node, ast.FunctionDef)
        for child in ast.walk(node)
        if child is not node
    }
    for node in definitions:
        if not node.name.startswith("_") and id(node) not in inner:
            assert ast.get_docstring(node), f"{path.name}: {node.name} has no docstring"


def test_importing_vlmpack_takes_no_transformers():
    script = "import sys, vlmpack; print(sorted(set(sys.modules) & {'transformers', 'datasets', 'PIL', 'accelerate', 'peft'}))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_public_name_is_there():
    import vlmpack

    for name in vlmpack.__all__:
        assert getattr(vlmpack, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = vlmpack.nothing


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("train_*.py")), ids=lambda path: path.name)
def test_example_scripts_stay_short(path):
    assert len(path.read_text().splitlines()) <= 120
