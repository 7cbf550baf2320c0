"""What the digest of a model's weights sees, and what it must not see."""

import pytest
import torch
from peft import IA3Config, LoraConfig, TrainableTokensConfig, get_peft_model
from tiny import llama, llava, text_config
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from torch.testing._internal.two_tensor import TwoTensor
from transformers import LlamaForCausalLM, LlavaForConditionalGeneration

import vlmpack
from vlmpack.training import weights_digest as module
from vlmpack.training.weights_digest import WeightsError, weights_digest


def float32_llava() -> nn.Module:
    return llava().float()


def test_one_weight_changed_by_one_unit_in_the_last_place_changes_it():
    model = llava()
    before = weights_digest(model)
    weight = model.get_decoder().layers[1].mlp.down_proj.weight.data
    weight[3, 5] = torch.nextafter(weight[3, 5], torch.tensor(torch.inf, dtype=weight.dtype))
    assert weights_digest(model) != before


def test_the_same_weights_give_the_same_64_digits_and_other_ones_do_not():
    assert weights_digest(llava()) == weights_digest(llava())
    assert weights_digest(llava()) != weights_digest(llava(seed=1))
    assert len(weights_digest(llava())) == 64


def test_a_changed_buffer_changes_it_and_one_that_is_not_saved_does_not():
    model = llama()
    model.register_buffer("scale", torch.tensor([1.0, 2.0]))
    model.register_buffer("scratch", torch.tensor([1.0, 2.0]), persistent=False)
    before = weights_digest(model)
    model.scratch[0] = 7
    assert weights_digest(model) == before
    model.scale[0] = 7
    assert weights_digest(model) != before


@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied head"])
def test_a_model_saved_and_loaded_again_has_the_same(tied, tmp_path):
    torch.manual_seed(0)
    model = LlamaForCausalLM(text_config(tie_word_embeddings=tied)).bfloat16()
    model.save_pretrained(tmp_path)
    again = LlamaForCausalLM.from_pretrained(tmp_path, attn_implementation="eager", dtype=torch.bfloat16)
    assert weights_digest(again) == weights_digest(model)


def test_a_vision_language_model_saved_and_loaded_again_has_the_same(tmp_path):
    model = float32_llava()
    model.save_pretrained(tmp_path)
    assert weights_digest(LlavaForConditionalGeneration.from_pretrained(tmp_path)) == weights_digest(model)


def test_enabling_packs_training_mode_and_checkpointing_do_not_change_it():
    model = float32_llava()
    before = weights_digest(model)
    vlmpack.enable(model)
    model.train()
    model.gradient_checkpointing_enable()
    model.config.use_cache = False
    assert weights_digest(model) == before


def test_a_wrapper_for_data_parallelism_does_not_change_it():
    model = llama()
    assert weights_digest(nn.DataParallel(model)) == weights_digest(model)


ADAPTERS = {
    "LoRA": LoraConfig(r=2, target_modules=["q_proj", "v_proj"]),
    "DoRA": LoraConfig(r=2, target_modules=["q_proj"], use_dora=True),
    "LoRA and a head of its own": LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"]),
    "LoRA on embeddings": LoraConfig(r=2, target_modules=["embed_tokens", "q_proj"]),
    "LoRA and new tokens": LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [3]}),
    "tokens": TrainableTokensConfig(token_indices=[2, 3], target_modules=["embed_tokens"]),
    "IA3": IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
}


@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)
def test_an_adapter_put_on_and_trained_does_not_change_it(adapter):
    before = weights_digest(float32_llava())
    model = get_peft_model(float32_llava(), adapter)
    assert weights_digest(model) == before
    for parameter in model.parameters():
        parameter.data += 0.5 * parameter.requires_grad
    assert weights_digest(model) == before


def test_a_base_weight_under_an_adapter_changes_it():
    model = get_peft_model(float32_llava(), LoraConfig(r=2, target_modules=["q_proj"]))
    before = weights_digest(model)
    model.get_base_model().get_decoder().layers[0].self_attn.q_proj.base_layer.weight.data[0, 0] += 1
    assert weights_digest(model) != before


def test_an_adapter_that_hides_what_it_adapts_is_refused(monkeypatch):
    model = get_peft_model(float32_llava(), LoraConfig(r=2, target_modules=["q_proj"]))
    monkeypatch.setattr(module, "_BEHIND_ADAPTERS", ("original_module",))
    with pytest.raises(WeightsError, match=r"q_proj is a Linear of PEFT.*take the digest before the adapter is put on"):
        weights_digest(model)


def test_dtype_class_and_settings_change_it():
    model = float32_llava()
    digests = {weights_digest(model), weights_digest(float32_llava().bfloat16())}
    model.config.text_config.rms_norm_eps = 1e-5
    digests.add(weights_digest(model))
    model.__class__ = type("Other", (LlavaForConditionalGeneration,), {})
    digests.add(weights_digest(model))
    assert len(digests) == 4


class Named(nn.Module):
    """Weights under given names, and nothing else."""

    def __init__(self, **weights: torch.Tensor) -> None:
        super().__init__()
        for name, weight in weights.items():
            self.register_buffer(name, weight)


def test_names_dtypes_and_shapes_count_and_the_order_of_making_does_not():
    ones, twos = torch.ones(2, 2), torch.full((2, 2), 2.0)
    models = [
        Named(one=ones, two=twos),
        Named(one=twos, two=ones),
        Named(one=ones, three=twos),
        Named(one=ones.reshape(4), two=twos),
        Named(one=ones.view(torch.int32), two=twos),
        Named(one=ones),
    ]
    assert len({weights_digest(model) for model in models}) == 6
    assert weights_digest(Named(two=twos, one=ones)) == weights_digest(models[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.uint8, torch.bool, torch.int8])
def test_weights_of_any_dtype_are_read_in_chunks_to_their_last_byte(dtype, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 64)
    weight = (torch.arange(15 * 7) % 2).reshape(15, 7).to(dtype)
    last = weight.clone()
    last[-1, -1] = 1 - weight[-1, -1].float().item()
    assert weights_digest(Named(one=weight)) != weights_digest(Named(one=last))
    assert weights_digest(Named(one=weight.T.contiguous().T)) == weights_digest(Named(one=weight))
    monkeypatch.setattr(module, "CHUNK", 1 << 20)
    assert weights_digest(Named(one=torch.tensor(2.0).to(dtype))) != weights_digest(
        Named(one=torch.tensor(0.0).to(dtype))
    )


def test_the_parts_of_a_tensor_made_of_others_count():
    a, b = torch.zeros(3), torch.ones(3)
    assert weights_digest(Named(one=TwoTensor(a, b))) != weights_digest(Named(one=TwoTensor(a, a.clone())))


class Partitioned(nn.Parameter):
    """As DeepSpeed's ZeRO-3 keeps a parameter: empty until all ranks gather it."""

    def all_gather(self) -> None:
        self.data = self.whole

    def partition(self) -> None:
        self.data = torch.empty(0)


def partitioned(whole: torch.Tensor) -> nn.Module:
    model = nn.Module()
    model.weight = Partitioned(torch.empty(0))
    model.weight.whole, model.weight.ds_tensor = whole, whole[:1]
    return model


def test_a_partitioned_weight_counts_as_a_whole_and_is_partitioned_again():
    model, whole = partitioned(torch.tensor([1.0, 2.0])), nn.Module()
    whole.weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    assert weights_digest(model) == weights_digest(whole)
    assert weights_digest(model) != weights_digest(partitioned(torch.tensor([1.0, 3.0])))
    assert model.weight.numel() == 0


def test_a_distributed_weight_counts_as_a_whole():
    weight = torch.arange(6.0).reshape(3, 2)
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        shards = distribute_tensor(weight, init_device_mesh("cpu", (1,)), [Shard(0)])
        assert weights_digest(Named(one=shards)) == weights_digest(Named(one=weight))
    finally:
        distributed.destroy_process_group()


def test_what_cannot_be_read_is_refused_by_name():
    with torch.device("meta"):
        model = LlamaForCausalLM(text_config())
    with pytest.raises(WeightsError, match=r"lm_head.weight \(23, 16\) is on the meta device.*load the model whole"):
        weights_digest(model)
    model = type("Own", (nn.Module,), {"get_extra_state": lambda self: {"scale": 2}})()
    with pytest.raises(WeightsError, match="_extra_state is saved as a dict, not a tensor"):
        weights_digest(model)
