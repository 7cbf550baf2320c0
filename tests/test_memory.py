"""Memory grows in a straight line with tokens and responses; only `dense` bends."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "examples" / "benchmarks"))
import memory
from memory import DENSE, PATHS, Axis, Size, line

TINY = Size(hidden=64, layers=1, vocabulary=128, prompt=32, response=16, responses=2)
GROWS = {  # what grows, and the tokens of the pack
    "responses": ((2, 8, 14, 20), [64, 160, 256, 352]),
    "prompts": ((1, 4, 7, 10), [64, 256, 448, 640]),
    "prompt": ((128, 512, 896, 1280), [160, 544, 928, 1312]),
}


def axis(field: str) -> Axis:
    values, _ = GROWS[field]
    return Axis("", field, values, (), tokens=True, series=())


def test_points_on_a_line_are_found_to_be_and_one_that_is_not_is_told():
    found = line([1, 2, 4], [5, 8, 14])
    assert found == pytest.approx({"slope": 3, "intercept": 2, "r_squared": 1, "worst": 0}, abs=1e-9)
    found = line([0, 1, 2], [1, 1, 4])  # the line is 0.5 + 1.5 x
    assert found == pytest.approx({"slope": 1.5, "intercept": 0.5, "r_squared": 0.75, "worst": 1.0})


@pytest.mark.parametrize("field", GROWS)
def test_the_peak_of_paths_is_linear_in_whatever_adds_tokens(field):
    found = memory.measured(axis(field), PATHS, TINY, "cpu")
    assert found["at"] == GROWS[field][1]
    assert found["worst"] < 0.02


def test_the_peak_of_dense_bends_with_a_prompt():
    bent, straight = (memory.measured(axis("prompt"), series, TINY, "cpu") for series in (DENSE, PATHS))
    assert bent["worst"] > 5 * straight["worst"]
    assert np.diff(bent["bytes"], 2).min() > 384**2  # equal steps grow by more than a byte a pair of added tokens


def test_both_heads_give_the_same_log_probabilities():
    model, pack = memory.model_of(TINY, "cpu").double(), memory.pack_of(TINY)
    memory.vlmpack.enable(model, "paths")
    ours, plain = memory.vlmpack.response_logps(model, pack), memory.all_logits(model, pack)
    assert plain.tolist() == pytest.approx(ours.tolist(), rel=1e-5)


def test_results_become_a_table_and_a_picture():
    found = {"bytes": [1 << 20, 2 << 20], "at": [2, 4], **line([2, 4], [1, 2])}
    results = {name: dict.fromkeys(each.series, found) for name, each in memory.AXES.items()}
    rows = memory.table(results).splitlines()
    assert rows[2] == "| responses K to one prompt | paths | 2 | 4 | 1.0 to 2.0 | 1.00000 | 0.00% |"
    assert len(rows) == 2 + sum(len(each.series) for each in memory.AXES.values())
    assert [panel.get_xlabel() for panel in memory.draw(results, "").axes] == [a.title for a in memory.AXES.values()]
