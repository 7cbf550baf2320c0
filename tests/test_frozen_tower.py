"""What a frozen tower made of an image is put in its place again: the same values and gradients, and no second run."""

from copy import deepcopy

import family_models
import pytest
import torch
from test_families import samples
from tiny import Computed, assert_same, llava, picture, woven

import vlmpack
from vlmpack.feature_store import FeatureStore
from vlmpack.frozen_tower import FeatureError, KnownFeatures
from vlmpack.pack import Pack
from vlmpack.proof.double import Doubled

FAMILIES = ["llava", "llava_next", "llava_onevision", "qwen2_5_vl", "qwen3_vl", "gemma3", "internvl", "idefics3"]


def total(tower) -> str:
    return str(float(sum(parameter.double().sum() for parameter in tower.parameters())))


def remembering(model, limit: int = 1 << 30):
    """The model with a frozen tower that keeps what it makes; its head, projector and decoder are trained."""
    tower = model.get_encoder("image").requires_grad_(False)
    tower.vlmpack_features = KnownFeatures(FeatureStore(limit), total)
    return model


def one(rows) -> Pack:
    (pack,) = vlmpack.pack(rows)
    return pack


def computed(model, pack) -> Computed:
    """Log-probabilities, and the gradients of what is trained."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    logps = vlmpack.response_logps(model, pack)
    weighted = (logps * torch.linspace(1, 2, len(logps))).sum()
    gradients = torch.autograd.grad(weighted, list(trained.values()), allow_unused=True)
    return Computed(logps.detach(), dict(zip(trained, gradients, strict=True)))


def runs(model) -> list[int]:
    """Fills with the size of the leading axis of what each run of the tower's first module is given."""
    seen = []
    first = next(m for m in model.get_encoder("image").modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Conv3d))
    first.register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    return seen


def shown(*images, prompt=3):
    """A prompt with pictures by number."""
    return woven([prompt, *(picture(number) for number in images), 4], [[5, 0], [6]], [(0, 1)])


@pytest.mark.parametrize("family", FAMILIES)
def test_values_and_gradients_are_those_of_computing_each_time(family):
    """To 1e-9 in float64, in batches of other images: none known, all known, some known."""
    made = samples(family)
    frozen, kept = (family_models.model(family) for _ in range(2))
    frozen.get_encoder("image").requires_grad_(False)
    remembering(kept)
    packs = [one([made[0]]), one([made[1]]), one(made)]
    with Doubled():
        expected = [computed(vlmpack.enable(frozen, "dense"), pack) for pack in packs]
        seen = runs(vlmpack.enable(kept, "dense"))
        for order in ((0, 2, 1), (1, 2, 2)):
            kept.get_encoder("image").vlmpack_features.store.clear()
            for number in order:
                assert_same(computed(kept, packs[number]), expected[number])
    assert len(seen) == (4 if family == "llava_onevision" else 3)  # which cuts an image that stands alone


def test_an_image_that_is_known_does_not_run_again():
    model = vlmpack.enable(remembering(llava()))
    seen = runs(model)
    for rows in ([shown(1, 2)], [shown(2, 3), shown(1)], [shown(3, 1), shown(2)], [shown(1, prompt=7)]):
        vlmpack.response_logps(model, one(rows)).sum().backward()
    assert seen == [2, 1]  # pictures 1 and 2; picture 3
    assert model.model.multi_modal_projector.linear_1.weight.grad.norm() > 0


def test_only_what_the_model_reads_is_kept():
    """One layer of three, 5 places of 12 numbers in float64 for each picture."""
    model = vlmpack.enable(remembering(llava()))
    vlmpack.response_logps(model, one([shown(1, 2)]))
    store = model.get_encoder("image").vlmpack_features.store
    assert (len(store), store.bytes) == (2, 2 * 5 * 12 * 8)


def test_at_the_limit_the_first_images_stay_and_nothing_is_wrong():
    """Room for three pictures: what came last makes room, also where a pack is known in part."""
    expected, model = vlmpack.enable(llava()), vlmpack.enable(remembering(llava(), limit=3 * 480 + 479))
    store, seen = model.get_encoder("image").vlmpack_features.store, runs(model)
    packs = [one([shown(*numbers)]) for numbers in ((1,), (2, 3), (4,), (4,), (5, 1), (1, 2), (3, 1))]
    for pack in packs:
        torch.testing.assert_close(vlmpack.response_logps(model, pack), vlmpack.response_logps(expected, pack))
        assert store.bytes <= store.limit
    assert seen == [1, 2, 1, 1, 1]  # 1; 2 and 3; 4 instead of 3; 5 instead of 4; 3 instead of 5
    assert (len(store), store.bytes) == (3, 3 * 480)


def test_a_limit_below_one_image_keeps_none_and_nothing_is_wrong():
    expected, model = vlmpack.enable(llava()), vlmpack.enable(remembering(llava(), limit=479))
    pack, seen = one([shown(1, 2)]), runs(model)
    for _ in range(2):
        torch.testing.assert_close(vlmpack.response_logps(model, pack), vlmpack.response_logps(expected, pack))
    assert seen == [2, 2]
    assert model.get_encoder("image").vlmpack_features.store.bytes == 0


def test_another_precision_and_other_weights_are_other_features():
    model = vlmpack.enable(remembering(llava().float()))
    pack, seen = one([shown(1)]), runs(model)
    vlmpack.response_logps(model, pack)
    with torch.autocast("cpu", torch.bfloat16):
        vlmpack.response_logps(model, pack)
        vlmpack.response_logps(model, pack)
    assert seen == [1, 1]
    tower = model.get_encoder("image")
    tower.vlmpack_features = KnownFeatures(tower.vlmpack_features.store, lambda _tower: "others")
    vlmpack.response_logps(model, pack)
    assert seen == [1, 1, 1]


def written_in_place(tower):
    with torch.no_grad():
        tower.embeddings.patch_embedding.weight.mul_(1.5)


def written_in_inference_mode(tower):
    with torch.inference_mode():
        tower.embeddings.patch_embedding.weight.mul_(1.5)


def loaded(tower):
    tower.load_state_dict(llava(seed=1).get_encoder("image").state_dict())


def loaded_without_a_copy(tower):
    tower.load_state_dict(llava(seed=1).get_encoder("image").state_dict(), assign=True)
    tower.requires_grad_(False)


def a_part_replaced(tower):
    tower.embeddings.patch_embedding.weight = torch.nn.Parameter(torch.ones(12, 3, 8, 8).double(), requires_grad=False)


def moved(tower):
    tower.embeddings.patch_embedding.weight.data = torch.ones(12, 3, 8, 8).double()


CHANGES = [written_in_place, written_in_inference_mode, loaded, loaded_without_a_copy, a_part_replaced, moved]


@pytest.mark.parametrize("change", CHANGES)
def test_features_of_weights_that_have_changed_are_neither_used_nor_kept(change):
    model, expected = vlmpack.enable(remembering(llava())), vlmpack.enable(llava())
    pack, tower = one([shown(1, 2)]), model.get_encoder("image")
    before = vlmpack.response_logps(model, pack)
    change(tower)
    expected.load_state_dict(model.state_dict())
    actual = vlmpack.response_logps(model, pack)
    assert (actual - before).abs().max() > 1e-3
    torch.testing.assert_close(actual, vlmpack.response_logps(expected, pack))
    assert len(tower.vlmpack_features.store) == 2


def test_weights_are_looked_at_once_while_they_stay_what_they_are():
    model, looked = vlmpack.enable(remembering(llava())), []
    tower = model.get_encoder("image")
    tower.vlmpack_features = KnownFeatures(FeatureStore(1 << 30), lambda tower: looked.append(tower) or "these")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for number in (1, 2, 1):
        vlmpack.response_logps(model, one([shown(number)])).sum().backward()
        optimizer.step()
    assert looked == [tower]


def test_a_saved_model_is_what_it_was_without_features(tmp_path):
    model, plain = vlmpack.enable(remembering(llava())), llava()
    vlmpack.response_logps(model, one([shown(1, 2)]))
    assert list(model.state_dict()) == list(plain.state_dict())
    model.save_pretrained(tmp_path / "features")
    plain.save_pretrained(tmp_path / "plain")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "features" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_a_pickled_model_comes_back_and_knows_no_image(tmp_path):
    """One that has not run: transformers' own hooks, which a tower gets when it first does, cannot be pickled."""
    ran, model, pack = vlmpack.enable(remembering(llava())), vlmpack.enable(remembering(llava())), one([shown(1, 2)])
    expected = vlmpack.response_logps(ran, pack)
    model.get_encoder("image").vlmpack_features = ran.get_encoder("image").vlmpack_features
    torch.save(model, tmp_path / "model.pt")
    back = torch.load(tmp_path / "model.pt", weights_only=False)
    store = back.get_encoder("image").vlmpack_features.store
    assert (len(store), store.bytes, store.limit) == (0, 0, 1 << 30)
    torch.testing.assert_close(vlmpack.response_logps(back, pack), expected)
    assert len(store) == len(ran.get_encoder("image").vlmpack_features.store) == 2


def test_a_copy_of_a_model_shares_the_memory_and_what_is_known():
    model = vlmpack.enable(remembering(llava()))
    copy = deepcopy(model)
    seen = runs(copy)
    first = vlmpack.response_logps(model, one([shown(1)]))
    assert torch.equal(vlmpack.response_logps(copy, one([shown(1)])), first)
    vlmpack.response_logps(copy, one([shown(1, 2)]))
    assert seen == [1]  # picture 2
    assert len(model.get_encoder("image").vlmpack_features.store) == 2


def test_the_towers_own_computation_comes_back_and_packs_without_images_touch_nothing():
    model = vlmpack.enable(remembering(llava()))
    vlmpack.response_logps(model, one([woven([1, 2], [[3], [4]], [(0, 1)])]))
    with pytest.raises(IndexError):
        vlmpack.model.run(model, one([shown(1)]), logits_to_keep=torch.tensor([10_000]))
    tower = model.get_encoder("image")
    assert "forward" not in vars(tower)
    assert len(tower(torch.zeros(1, 3, 16, 16, dtype=torch.float64), output_hidden_states=True).hidden_states) == 3


def test_a_tower_that_is_trained_again_is_refused():
    model = vlmpack.enable(remembering(llava()))
    model.get_encoder("image").requires_grad_(True)
    with pytest.raises(FeatureError, match=r"CLIPVisionModel is trained \(embeddings\.class_embedding\), and what it"):
        vlmpack.response_logps(model, one([shown(1)]))


def test_a_tower_whose_outputs_are_not_by_image_is_refused_by_name():
    model = vlmpack.enable(remembering(family_models.model("mistral3")))
    with (
        Doubled(),
        pytest.raises(FeatureError, match=r"PixtralVisionModel makes \[1, \d+, \d+\] of images of \[1, 1\]"),
    ):
        vlmpack.response_logps(model, one(samples("mistral3")))


def test_the_tower_keeps_no_activations_and_its_features_need_no_gradient():
    """Under gradient checkpointing transformers asks the tower's patches for a gradient; known or not, none is kept."""
    model = vlmpack.enable(remembering(llava())).train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()
    needs = []
    model.model.multi_modal_projector.register_forward_pre_hook(
        lambda _module, inputs: needs.append(inputs[0].requires_grad)
    )
    for _ in range(2):
        vlmpack.response_logps(model, one([shown(1, 2)])).sum().backward()
    assert needs == [False, False]
    assert all(parameter.grad is None for parameter in model.get_encoder("image").parameters())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_features_come_back_from_host_memory_to_the_gpu():
    model = vlmpack.enable(remembering(llava().cuda()))
    seen = runs(model)
    pack = one([shown(1, 2), shown(2, 3)]).to("cuda")
    first, second = vlmpack.response_logps(model, pack), vlmpack.response_logps(model, pack)
    assert torch.equal(first, second)
    assert seen == [3]
