"""What is read off forecasts: ratios, what cannot run, and the cell to take."""

import pytest

from vlmpack.costs.cells import CELLS
from vlmpack.costs.forecast import Forecast
from vlmpack.costs.forecast_table import advice, forecast_table, remarks, speed_up
from vlmpack.costs.saving import Cost
from vlmpack.lengths import Lengths, LengthTable

FLOPS = (600.0, 300.0, 240.0, 200.0, 150.0, 120.0, 100.0, 50.0)
TABLE = LengthTable.of([Lengths(3, (2, 1), (b"one",), ((0, 1),))] * 1500)


def made(flops=FLOPS, peaks=(10,) * 8) -> list[Forecast]:
    return [
        Forecast(cell, steps=4, packs=6, tokens=1000, padding=250, passes=12, flops=each, peak=peak)
        for cell, each, peak in zip(CELLS, flops, peaks, strict=True)
    ]


def test_a_speed_up_is_the_flops_of_the_base_over_those_of_the_cell():
    assert speed_up(made(), "vanilla") == [0.5, 1, 1.25, 1.5, 2, 2.5, 3, 6]
    assert speed_up(made(), "padded pairs")[-1] == 12


def test_columns_are_aligned():
    lines = forecast_table(made()).splitlines()
    assert lines[0] == (
        "cell             tokens  padding  vision     FLOPs  packs/step  peak  x padded pairs  x vanilla"
    )
    assert lines[-1] == (
        "trees, by image   1,000      25%      12  5.00e+01         1.5    10           12.00       6.00"
    )
    assert {len(line) for line in lines} == {len(lines[0])}


def test_the_cheapest_cell_is_advised_with_the_settings_that_differ():
    assert advice(made(), 10, {"max_tokens": 10}) == (
        "best: trees, by image (12.00 times padded pairs and 6.00 times vanilla; it changes which rows meet in a "
        "step), with DPOConfig(max_tokens=10, group_by_image=True)"
    )


def test_of_cells_that_cost_the_same_the_one_with_the_fewest_settings_is_advised():
    assert advice(made(flops=(*FLOPS[:5], 100.0, 100.3, 99.9)), 10, {}) == (
        "best: trees (5.98 times padded pairs and 2.99 times vanilla), with DPOConfig()"
    )


def test_a_cell_that_does_not_fit_is_not_advised_but_named():
    found = made(peaks=(30, 10, 10, 10, 10, 10, 10, 20))
    assert advice(found, 10, {}).startswith("best: trees (")
    said = remarks(found, TABLE, Cost(1.0, 1.0), max_tokens=10)
    assert said == [
        "one epoch of 1,500 prompts, 3,000 responses, 1,500 pairs, 1,500 images; 4 optimizer steps; FLOPs of forward passes",
        "'padded pairs', 'trees, by image': a prompt alone is larger than max_tokens=10; 30 would do for all",
    ]


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (Cost(1.0, 1.0, image=None), "FLOPs leave out the vision tower: it takes pictures of any size"),
        (Cost(1.0, 0.0), "no --model was given: FLOPs stand for tokens alone"),
    ],
    ids=["any size", "no model"],
)
def test_what_flops_leave_out_is_said(cost, message):
    assert any(message in line for line in remarks(made(), TABLE, cost, max_tokens=10))
