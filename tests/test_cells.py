"""Cells are named once, and their settings are those that the trainers take."""

import pytest

from vlmpack.costs.cells import CELLS
from vlmpack.training.config import DPOConfig, RewardConfig


def test_names_are_told_apart():
    assert [cell.name for cell in CELLS] == [
        "padded pairs",
        "vanilla",
        "sorting",
        "packing",
        "both",
        "bins",
        "trees",
        "trees, by image",
    ]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
@pytest.mark.parametrize("config", [DPOConfig, RewardConfig])
def test_a_cell_is_a_way_to_train(config, cell, tmp_path):
    args = config(output_dir=str(tmp_path), report_to=[], **cell.settings)
    assert {name: getattr(args, name) for name in cell.settings} == cell.settings


def test_ours_is_what_trainers_do_unasked(tmp_path):
    args = DPOConfig(output_dir=str(tmp_path), report_to=[])
    (ours,) = (cell for cell in CELLS if cell.name == "trees")
    assert {name: getattr(args, name) for name in ours.settings} == ours.settings
