"""What is said of families: in docs/models.md, in assets/families.md, and by what `enable` accepts."""

import re
from pathlib import Path

import census
import pytest

from vlmpack import proven, support

ROOT = Path(__file__).parent.parent
FAMILIES = (ROOT / "assets" / "families.md").read_text()
OUTCOMES = dict(re.findall(r"^\| ([\w.-]+) \| (\w[\w ]*) \|", FAMILIES, re.MULTILINE))


def test_the_accepted_families_are_those_that_the_census_found_exact():
    assert {name for name, outcome in OUTCOMES.items() if outcome == "exact"} == support.PROVEN
    assert len(proven.IMAGE_TEXT) >= 40


def test_hybrids_and_encoder_decoders_are_refused():
    for name in ("qwen3_5", "qwen3_5_moe", "lfm2_vl", "lfm2", "qwen3_next", "mamba", "jamba", "t5gemma2", "florence2"):
        assert OUTCOMES[name] == "refused"


def test_the_docs_have_the_table_that_the_census_makes():
    assert f"{census.BEGIN}\n{census.supported()}\n{census.END}" in (ROOT / "docs" / "models.md").read_text()


@pytest.mark.parametrize("family", ["llava", "qwen3_vl", "gemma4", "gpt_oss"])
def test_a_family_of_the_table_is_exact_here(family):
    assert census.judged(family)[0] == "exact"


@pytest.mark.slow
def test_every_accepted_family_is_exact_here_on_other_weights_and_rows():
    assert census.check() == []
