"""Freezing: the parts have the same names in every family, and what is frozen costs neither memory nor a gradient."""

from copy import deepcopy

import family_models
import pytest
import torch
from test_trainers import curve, dataset, train
from tiny import llama, llava

import vlmpack
from vlmpack import RewardModel, unpacked
from vlmpack.training.config import ConfigError
from vlmpack.training.freezing import freeze, parts_of, spare_frozen_tower

# One parameter of each part, and what the part is made of, by transformers' own names.
MEMBERS = {
    "llava": {
        "vision_tower": {"model.vision_tower."},
        "multi_modal_projector": {"model.multi_modal_projector."},
        "language_model": {"model.language_model.", "lm_head."},
    },
    "llava_next": {
        "vision_tower": {"model.vision_tower."},
        "multi_modal_projector": {"model.multi_modal_projector.", "model.image_newline"},
        "language_model": {"model.language_model.", "lm_head."},
    },
    "idefics2": {
        "vision_tower": {"model.vision_model."},
        "multi_modal_projector": {"model.connector.modality_projection.", "model.connector.perceiver_resampler."},
        "language_model": {"model.text_model.", "lm_head."},
    },
    "gemma3": {
        "vision_tower": {"model.vision_tower."},
        "multi_modal_projector": {"model.multi_modal_projector."},
        "language_model": {"model.language_model."},  # whose embeddings are the head
    },
    "qwen2_5_vl": {
        "vision_tower": {"model.visual.patch_embed.", "model.visual.blocks."},
        "multi_modal_projector": {"model.visual.merger."},
        "language_model": {"model.language_model.", "lm_head."},
    },
    "qwen3_vl": {
        "vision_tower": {"model.visual.patch_embed.", "model.visual.pos_embed.", "model.visual.blocks."},
        "multi_modal_projector": {"model.visual.merger.", "model.visual.deepstack_merger_list."},
        "language_model": {"model.language_model.", "lm_head."},
    },
}
FREE = {"vision_tower": False, "multi_modal_projector": False, "language_model": False}
PARTS = tuple(FREE)


def frozen_names(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def lora(**settings):
    peft = pytest.importorskip("peft", reason="adapters need peft; install vlmpack[peft]")
    return peft.LoraConfig(r=2, target_modules=r".*(q_proj|v_proj)", **settings)


@pytest.mark.parametrize("family", MEMBERS)
def test_each_part_is_frozen_by_its_name_and_nothing_else(family):
    expected = MEMBERS[family]
    everything = {name for name, _ in family_models.model(family).named_parameters()}
    assert {name for part in PARTS for name in everything if name.startswith(tuple(expected[part]))} == everything
    for part in PARTS:
        model = family_models.model(family)
        freeze(model, **{**FREE, part: True})
        assert frozen_names(model) == {name for name in everything if name.startswith(tuple(expected[part]))}
        for beginning in expected[part]:
            assert any(name.startswith(beginning) for name in frozen_names(model)), beginning


def test_the_user_is_told_what_is_frozen_and_how_much_is_left():
    model = llava()
    said = freeze(model, vision_tower=True, multi_modal_projector=True, language_model=False)
    text = sum(p.numel() for name, p in model.named_parameters() if "language_model" in name or "lm_head" in name)
    assert said == (
        f"frozen: vision_tower (4,592 parameters), multi_modal_projector (480 parameters); {text:,} parameters remain "
        f"trainable"
    )
    assert freeze(llava(), **FREE) == ""


def test_a_part_that_a_model_does_not_have_is_an_error_that_names_its_parts():
    with pytest.raises(
        ConfigError,
        match=r"freeze_vision_tower=True, but LlamaForCausalLM \(llama\) has no vision_tower; its parts are: language_model\.",
    ):
        freeze(llama(), **{**FREE, "vision_tower": True})
    with pytest.raises(ConfigError, match="freeze_multi_modal_projector=True, but RewardModel .* has no multi_modal_"):
        freeze(RewardModel.from_backbone(llama()), **{**FREE, "multi_modal_projector": True})


def test_freezing_everything_is_an_error():
    with pytest.raises(ConfigError, match=r"leaves nothing of LlavaForConditionalGeneration \(llava\) to train"):
        freeze(llava(), vision_tower=True, multi_modal_projector=True, language_model=True)
    with pytest.raises(ConfigError, match="leaves nothing of LlamaForCausalLM"):
        freeze(llama(), **{**FREE, "language_model": True})


def test_a_reward_models_head_is_never_frozen():
    model = RewardModel.from_backbone(llava())
    freeze(model, vision_tower=True, multi_modal_projector=True, language_model=True)
    assert {name for name, _ in model.named_parameters()} - frozen_names(model) == {"reward_head.score.weight"}


def test_adapters_in_a_frozen_part_are_frozen_with_it():
    config = lora()
    from peft import get_peft_model

    model = get_peft_model(llava(), config)
    before = {name for name, p in model.named_parameters() if p.requires_grad}
    freeze(model, **{**FREE, "vision_tower": True})
    after = {name for name, p in model.named_parameters() if p.requires_grad}
    assert before - after == {name for name in before if "vision_tower" in name} != set()
    assert all("language_model" in name for name in after) and after
    with pytest.raises(ConfigError, match="leaves nothing"):
        freeze(model, **{**FREE, "language_model": True})


def spent(model, pack) -> tuple[int, bool]:
    """Numbers kept for the backward pass, and whether image features need a gradient."""
    kept, needs = [], []
    hook = model.get_encoder("image").register_forward_hook(
        lambda module, inputs, output: needs.append(output.last_hidden_state.requires_grad)
    )
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        vlmpack.response_logps(model, pack).sum().backward()
    hook.remove()
    return sum(kept), needs[0]


@pytest.mark.parametrize("asked_before", [False, True], ids=["", "embeddings asked before"])
@pytest.mark.parametrize("reentrant", [None, False, True], ids=["kept", "not reentrant", "reentrant"])
def test_a_frozen_tower_keeps_nothing_with_and_without_gradient_checkpointing(reentrant, asked_before):
    (pack,) = vlmpack.pack(dataset(3))
    costs = []
    for spare in (False, True):
        model = vlmpack.enable(llava()).train()
        freeze(model, vision_tower=True, multi_modal_projector=True, language_model=False)
        if asked_before:
            model.enable_input_require_grads()
        if spare:
            spare_frozen_tower(model)
        if reentrant is not None:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
        costs.append(spent(model, pack))
    (kept, needs), (kept_spared, needs_spared) = costs
    assert not needs_spared
    asked = asked_before or reentrant is not None
    assert needs is asked  # as transformers leaves it
    assert kept_spared < kept if asked else kept_spared == kept


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_a_merger_trains_inside_a_frozen_tower(family):
    model = family_models.model(family)
    freeze(model, **{**FREE, "vision_tower": True})
    spare_frozen_tower(model)
    model.train().gradient_checkpointing_enable()
    inputs = []
    hook = model.model.visual.merger.register_forward_pre_hook(
        lambda module, args: inputs.append(args[0].requires_grad)
    )
    images = torch.randn(4, model.model.visual.patch_embed.proj.weight[0].numel(), dtype=torch.float64)
    features = model.get_image_features(images, torch.tensor([[1, 2, 2]])).pooler_output
    hook.remove()
    assert inputs == [False]
    torch.cat(list(features)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.model.visual.merger.parameters())
    assert not any(parameter.grad is not None for parameter in model.model.visual.blocks.parameters())


def test_a_tower_in_which_an_adapter_trains_is_left_as_it_is():
    config = lora()
    from peft import get_peft_model

    model = get_peft_model(llava(), config)
    spare_frozen_tower(model)
    model.enable_input_require_grads()
    tower = vlmpack.model.unwrapped(model).get_encoder("image")
    assert tower.get_input_embeddings() is not None
    assert tower(torch.zeros(1, 3, 16, 16, dtype=torch.float64)).last_hidden_state.requires_grad


def test_a_copy_of_a_spared_model_computes_with_its_own_weights():
    model = llava()
    freeze(model, **{**FREE, "vision_tower": True})
    spare_frozen_tower(model)
    copy = deepcopy(model)
    torch.nn.init.zeros_(model.model.vision_tower.embeddings.patch_embedding.weight)
    rows = dataset(3)
    expected, actual = (unpacked.response_logps(each, rows) for each in (llava(), copy))
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("kind", ["dpo", "reward"])
def test_frozen_parts_stay_as_they_were_and_training_is_the_same_packed_and_unpacked(kind, tmp_path, capsys):
    settings = {
        "freeze_vision_tower": True,
        "freeze_multi_modal_projector": True,
        "gradient_checkpointing": True,
        "optim": "sgd",
    }
    expected = train(kind, tmp_path, steps=4, packing=False, **settings)
    capsys.readouterr()
    packed = train(kind, tmp_path, steps=4, **settings)
    said = "vlmpack: frozen: vision_tower (4,592 parameters), multi_modal_projector (480 parameters); "
    assert capsys.readouterr().out.startswith(said)
    torch.testing.assert_close(curve(packed), curve(expected), rtol=0, atol=1e-4)
    assert curve(packed).std() > 1e-3
    before = dict(llava().float().base_model.named_parameters())
    moved = {name for name, p in packed.model.base_model.named_parameters() if not torch.equal(p, before[name])}
    assert not any("vision_tower" in name or "projector" in name for name in moved)
    assert any("language_model" in name for name in moved)


def test_training_only_the_projector_moves_only_it(tmp_path):
    trainer = train("dpo", tmp_path, steps=3, freeze_vision_tower=True, freeze_language_model=True)
    before = dict(llava().float().named_parameters())
    moved = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == set(parts_of(trainer.model)["multi_modal_projector"])


def test_a_tower_that_is_trained_after_all_is_asked_for_its_embeddings_again():
    model = llava()
    embeddings = patch_embedding_of(model)
    model.get_encoder("image").requires_grad_(False)
    for _ in range(2):
        spare_frozen_tower(model)
    copied = deepcopy(model)
    for each in (model, copied):
        each.get_encoder("image").requires_grad_(True)
        spare_frozen_tower(each)
        found = patch_embedding_of(each)
        pixels = torch.zeros(1, 3, 16, 16, dtype=torch.float64)
        assert found(pixels).requires_grad
        assert not found._forward_hooks
    assert patch_embedding_of(model) is embeddings


def patch_embedding_of(model):
    """What transformers' gradient checkpointing asks a CLIP tower for."""
    return model.get_encoder("image").get_input_embeddings()
