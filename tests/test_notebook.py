"""The guided tour runs from top to bottom, and what it was committed with is what it says."""

import re
from itertools import groupby
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

PATH = Path(__file__).parent.parent / "examples" / "inspect_masks.ipynb"
SECONDS = 60  # of two cores, from top to bottom
NUMBER = re.compile(r"-?\d+\.\d+(?:e[-+]\d+)?")


@pytest.fixture(scope="module")
def committed():
    return nbformat.read(PATH, as_version=4)


@pytest.fixture(scope="module")
def executed():
    notebook = nbformat.read(PATH, as_version=4)
    clock = nbformat.v4.new_code_cell("import time; print(time.process_time())")
    notebook.cells.append(clock)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(PATH.parent)}}).execute()
    return notebook


def printed(cell):
    return "".join(output["text"] for output in cell.outputs if output.get("name") == "stdout")


def held(cell):
    """What a cell printed, but for operations: some versions of torch count a CPU's attention, others do not."""
    return "\n".join(line for line in printed(cell).splitlines() if not line.startswith("million operations"))


def kinds(cell):
    shown = [output for output in cell.outputs if output.get("name") != "stderr"]  # warnings differ between machines
    found = [sorted(output.get("data", {"stream": 0})) for output in shown]
    return [kind for kind, _ in groupby(found)]  # a text may come in several pieces


def test_its_outputs_are_those_it_was_committed_with(committed, executed):
    for before, after in zip(committed.cells, executed.cells, strict=False):
        if before.cell_type == "code":
            assert kinds(after) == kinds(before)
            assert NUMBER.sub("#", held(after)).split() == NUMBER.sub("#", held(before)).split()
            numbers = [[float(number) for number in NUMBER.findall(held(cell))] for cell in (after, before)]
            assert numbers[0] == pytest.approx(numbers[1], abs=0.01)


def test_it_takes_under_a_minute(executed):
    assert 0 < float(printed(executed.cells[-1])) < SECONDS


def test_it_was_committed_without_warnings(committed):
    named = [output.get("name") for cell in committed.cells if cell.cell_type == "code" for output in cell.outputs]
    assert "stderr" not in named


def test_it_answers_what_people_ask(committed):
    everything = "\n".join(printed(cell) for cell in committed.cells if cell.cell_type == "code")
    assert "A2 sees tokens [0, 1, 2," in everything
    assert "picture 1 stands at tokens [4, 5, 6," in everything
    assert "vision passes        12 unpacked,   2 packed: 6.00 times fewer" in everything
    assert "largest weight outside the mask: 0.0\n" in everything


def test_packs_show_themselves_and_ask_for_nothing_from_outside(committed):
    shown = [o.data["text/html"] for c in committed.cells if c.cell_type == "code" for o in c.outputs if "data" in o and "text/html" in o.data]  # fmt: skip
    assert len(shown) == 2  # a sample and a pack
    for html in shown:
        assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", html)
    assert PATH.stat().st_size < 1_500_000
