"""The ready accelerate configurations: read by accelerate, and of the engine that their name says."""

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

FOLDER = Path(__file__).parent.parent / "examples" / "accelerate"
ENGINES = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "deepspeed_zero2": "DEEPSPEED", "deepspeed_zero3": "DEEPSPEED"}


@pytest.mark.parametrize("name", ENGINES)
def test_accelerate_reads_it(name):
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))  # raises for a key that it does not know
    assert config.distributed_type == ENGINES[name]
    assert config.mixed_precision == "bf16"


def test_the_stages_and_versions_are_those_of_the_names():
    assert load_config_from_file(str(FOLDER / "fsdp2.yaml")).fsdp_config["fsdp_version"] == 2
    assert load_config_from_file(str(FOLDER / "deepspeed_zero2.yaml")).deepspeed_config["zero_stage"] == 2
    assert load_config_from_file(str(FOLDER / "deepspeed_zero3.yaml")).deepspeed_config["zero_stage"] == 3


def test_none_lies_there_untested():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(ENGINES)
