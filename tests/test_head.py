"""The model's own head gives log-probabilities: what models do to logits is found out, and nothing is left changed."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import family_models
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import assert_same, differentiate, llama, llava, sample
from transformers import AutoConfig

import vlmpack
from vlmpack import unpacked
from vlmpack.head import logit_map_of
from vlmpack.logit_map import LogitMap
from vlmpack.proof.double import Doubled
from vlmpack.proof.miniature import build, miniature

ROWS = [sample([1, 2], [[3, 1], [2, 4, 0], [3]], [(0, 1)]), sample([5], [[3], [4, 4]], [(0, 1)])]


def of_family(name, **settings):
    config = miniature(AutoConfig.for_model(name))
    for key, value in settings.items():
        setattr(config.get_text_config(), key, value)
    return build(config)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("llama", {}, LogitMap()),
        ("gemma2", {"final_logit_softcapping": 3.0}, LogitMap(1.0, 3.0)),
        ("gemma2", {"final_logit_softcapping": None}, LogitMap()),
        ("granite", {"logits_scaling": 4.0}, LogitMap(0.25)),
        ("cohere", {}, LogitMap(0.0625)),
    ],
)
def test_what_a_family_does_to_its_logits_is_found_and_obeyed(name, settings, expected):
    model = vlmpack.enable(of_family(name, **settings))
    assert logit_map_of(model) == expected
    with Doubled():
        (pack,) = vlmpack.pack(ROWS)
        actual = differentiate(model, vlmpack.response_logps(model, pack))
        assert_same(actual, differentiate(model, unpacked.response_logps(model, ROWS)))
    assert getattr(model.config, "final_logit_softcapping", None) == settings.get("final_logit_softcapping")


@pytest.mark.parametrize("family", ["paligemma", "gemma3", "qwen2_5_vl", "cohere2_vision"])
def test_it_is_found_on_vision_language_models_too(family):
    assert logit_map_of(vlmpack.enable(family_models.model(family))) is not None


def test_logits_changed_in_an_unknown_way_are_kept_and_that_is_logged(caplog):
    model = vlmpack.enable(llama())
    forward = model.forward

    def bent(*arguments, **options):
        outputs = forward(*arguments, **options)
        outputs.logits = outputs.logits * (1 + outputs.logits.square())
        return outputs

    model.forward = bent
    (pack,) = vlmpack.pack(ROWS)
    with caplog.at_level(logging.WARNING, "vlmpack"):
        packed = differentiate(model, vlmpack.response_logps(model, pack))
    assert "LlamaForCausalLM changes its logits after the head" in caplog.text
    assert_same(packed, differentiate(model, unpacked.response_logps(model, ROWS)))


def test_words_that_a_model_never_says_are_an_unknown_change(caplog):
    model = vlmpack.enable(llama())
    forward = model.forward

    def silent(*arguments, **options):
        outputs = forward(*arguments, **options)
        outputs.logits[..., 13] = torch.finfo(torch.float64).min
        return outputs

    model.forward = silent
    assert logit_map_of(model) is None


@pytest.mark.parametrize("targets", [["lm_head"], ["q_proj"]])
def test_an_adapter_on_the_head_or_beside_it_equals_the_unpacked(targets, monkeypatch):
    model = get_peft_model(llama(), LoraConfig(target_modules=targets, r=2, init_lora_weights=False)).double()
    vlmpack.enable(model)
    monkeypatch.setattr("vlmpack.head.CHUNK_LOGITS", 0)  # as few positions at a time as it goes
    (pack,) = vlmpack.pack(ROWS)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and all("lora" in name for name in trained)
    packed, alone = vlmpack.response_logps(model, pack), unpacked.response_logps(model, ROWS)
    torch.testing.assert_close(packed, alone, rtol=1e-6, atol=1e-6)  # its RMSNorm computes in float32
    weights = torch.linspace(1, 2, len(packed), dtype=packed.dtype)
    gradients = [torch.autograd.grad(values, list(trained.values()), weights) for values in (packed, alone)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


def test_a_head_that_something_else_wrapped_is_called_and_put_back():
    model = vlmpack.enable(llama())
    calls, ordinary = [], model.lm_head.forward
    model.lm_head.forward = lambda hidden: calls.append(len(hidden)) or ordinary(hidden)
    wrapped = model.lm_head.forward
    (pack,) = vlmpack.pack(ROWS)
    assert_same(
        differentiate(model, vlmpack.response_logps(model, pack)),
        differentiate(model, unpacked.response_logps(model, ROWS)),
    )
    assert calls and model.lm_head.forward is wrapped


def test_the_head_is_its_own_again_after_a_failure():
    model = vlmpack.enable(llama())
    (pack,) = vlmpack.pack(ROWS)
    vlmpack.response_logps(model, pack)
    model.model.norm.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        vlmpack.response_logps(model, pack)
    assert "forward" not in vars(model.lm_head)


def test_finding_out_draws_no_random_number_and_leaves_no_gradient():
    model = vlmpack.enable(llava()).train()
    model.config.get_text_config().attention_dropout = 0.5
    before = torch.get_rng_state()
    logit_map_of(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())


SHARDED = """
import os, torch, torch.distributed as dist
os.environ.update(MASTER_ADDR="localhost", MASTER_PORT="0", RANK="0", WORLD_SIZE="1")
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
from peft import LoraConfig, get_peft_model
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from test_head import ROWS
from tiny import llama
import vlmpack
from vlmpack import unpacked
torch.manual_seed(0)
model = get_peft_model(llama().float(), LoraConfig(target_modules=["q_proj"], r=2))
expected = unpacked.response_logps(model, ROWS)
vlmpack.enable(model)
mesh = init_device_mesh("cpu", (1,))
for layer in vlmpack.model.unwrapped(model).model.layers:
    fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
(pack,) = vlmpack.pack(ROWS)
found = vlmpack.response_logps(model, pack)
torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
found.sum().backward()
"""


@pytest.mark.slow
def test_an_adapter_around_which_weights_are_sharded_is_called_as_a_whole():
    """FSDP2 gathers what stands outside the layers, the head too, when the adapter's own forward is called."""
    here = Path(__file__).parent
    folders = os.pathsep.join([str(here), str(here.parent / "examples"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": folders}
    result = subprocess.run([sys.executable, "-c", SHARDED], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
