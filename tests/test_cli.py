"""`vlmpack verify`: says what was found, and by its exit status whether packing is exact."""

import json
import re
import subprocess
import sys
import time

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

import vlmpack
from vlmpack import cli, masks, plan
from vlmpack.proof.miniature import miniature


def test_an_exact_model_exits_with_0_and_says_what_was_compared(tmp_path, capsys):
    AutoConfig.for_model("llama").save_pretrained(tmp_path)
    assert cli.main(["verify", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0] == f"vlmpack: verifying {tmp_path} on a small model of the same architecture, packed against unpacked"
    )
    assert re.fullmatch(
        r"LlamaForCausalLM \(llama\): 2 layers, [\d,]+ parameters, float64; 3 prompts with 9 responses", lines[1]
    )
    assert re.fullmatch(r"exact \(max relative difference \de-1\d\)", lines[2])
    assert re.fullmatch(r"\(\d+ s\)", lines[3])


def test_a_file_names_a_model_too(tmp_path, capsys):
    AutoConfig.for_model("llama").save_pretrained(tmp_path)
    assert cli.main(["verify", str(tmp_path / "config.json"), "--seed", "3"]) == 0
    assert "LlamaForCausalLM (llama)" in capsys.readouterr().out


def test_real_weights_are_taken_where_that_is_asked_for(tmp_path, capsys):
    from transformers import LlamaForCausalLM

    config = miniature(LlamaConfig(num_hidden_layers=3))
    config.num_hidden_layers = 3  # which a miniature would not have
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    assert cli.main(["verify", str(tmp_path), "--full"]) == 0
    out = capsys.readouterr().out
    assert f"verifying {tmp_path} on the real weights" in out
    assert "3 layers" in out


def test_an_inexact_model_exits_with_1_and_says_where(tmp_path, capsys, monkeypatch):
    AutoConfig.for_model("llama").save_pretrained(tmp_path)
    monkeypatch.setattr(masks, "path_causal", lambda reach: lambda b, h, q, k: k <= q)
    monkeypatch.setattr(plan, "runs", lambda forest: (plan.Run(tuple(range(len(forest.parents))), ()),))
    assert cli.main(["verify", str(tmp_path)]) == 1
    assert re.search("different: siblings see each other.*\nfirst difference: layer 0", capsys.readouterr().out)


def test_a_model_that_cannot_be_packed_exits_with_1_and_the_reason(tmp_path, capsys):
    AutoConfig.for_model("t5").save_pretrained(tmp_path)
    assert cli.main(["verify", str(tmp_path)]) == 1
    assert "refused: it is an encoder-decoder" in capsys.readouterr().out


def test_a_model_that_is_not_there_exits_with_1(tmp_path, capsys):
    assert cli.main(["verify", str(tmp_path / "nothing")]) == 1
    assert "not run: the model could not be built" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [[], ["verify"], ["prove", "llama"]], ids=["no command", "no model", "unknown command"]
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(arguments)
    assert exit.value.code == 2
    assert "usage: vlmpack" in capsys.readouterr().err


def test_an_unknown_flag_is_named_with_the_one_that_was_meant(capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(["inspect", "rows.jsonl", "--rows", "0"])
    assert exit.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: vlmpack inspect ")
    assert said.endswith("vlmpack inspect: error: unknown: --rows 0; did you mean --row?\n")


def test_help_is_there_without_transformers():
    script = "import sys; from vlmpack import cli\ntry: cli.main(['verify', '--help'])\nexcept SystemExit: print('transformers' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "hub id, folder, or config.json" in result.stdout
    assert result.stdout.strip().endswith("False")


LLAVA_7B = {
    "architectures": ["LlavaForConditionalGeneration"],
    "image_token_index": 32000,
    "model_type": "llava",
    "pad_token_id": 32001,
    "projector_hidden_act": "gelu",
    "text_config": {
        "architectures": ["LlamaForCausalLM"],
        "max_position_embeddings": 4096,
        "model_type": "llama",
        "rms_norm_eps": 1e-05,
        "vocab_size": 32064,
    },
    "vision_config": {
        "hidden_size": 1024,
        "image_size": 336,
        "intermediate_size": 4096,
        "model_type": "clip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "projection_dim": 768,
    },
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
}


def test_a_model_of_7_billion_parameters_is_verified_by_its_configuration_in_under_a_minute(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(LLAVA_7B))
    start = time.perf_counter()
    assert cli.main(["verify", str(tmp_path)]) == 0
    assert "LlavaForConditionalGeneration (llava)" in capsys.readouterr().out
    assert time.perf_counter() - start < 60


def test_a_saved_reward_model_is_verified_by_its_backbone(tmp_path, capsys):
    llama = AutoModelForCausalLM.from_config(miniature(LlamaConfig()))
    vlmpack.RewardModel.from_backbone(llama).save_pretrained(tmp_path)
    assert cli.main(["verify", str(tmp_path)]) == 0
    assert "LlamaForCausalLM (llama)" in capsys.readouterr().out


def test_code_that_comes_with_a_model_is_not_run(tmp_path, capsys):
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.OwnModel"}}
    (tmp_path / "config.json").write_text(json.dumps(own))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert cli.main(["verify", str(tmp_path)]) == 1
    assert "not run: the model could not be built" in capsys.readouterr().out
    assert not (tmp_path / "ran").exists()


def test_a_hub_id_with_dots_is_no_path(capsys):
    assert cli.main(["verify", "owner/model-1.5-7b"]) == 1
    assert "there is no" not in capsys.readouterr().out
