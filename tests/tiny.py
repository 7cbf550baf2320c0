"""Models small enough for float64 on a laptop, and random preference samples for them."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from vlmpack import ImageInputs, Sample

VOCABULARY, IMAGE, EOS = 23, 22, 0  # EOS is the padding token too, as in many checkpoints
IMAGE_TOKENS, SIDE = 4, 16


def text_config(**changes) -> LlamaConfig:
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
        "pad_token_id": EOS,
        "eos_token_id": EOS,
    }
    return LlamaConfig(**{**settings, **changes})


def double(model: nn.Module) -> nn.Module:
    """The model in float64 throughout: transformers' RMSNorm would compute in float32 whatever it is given."""
    model = model.double()
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child).__name__.endswith("RMSNorm"):
                norm = nn.RMSNorm(child.weight.shape, eps=child.variance_epsilon, dtype=torch.float64)
                norm.weight = child.weight
                setattr(module, name, norm)
    return model


def llama(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return double(LlamaForCausalLM(text_config()))


def llava(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    vision = CLIPVisionConfig(
        hidden_size=12,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=SIDE // 2,
        initializer_range=0.3,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text_config(),
        image_token_index=IMAGE,
        vision_feature_layer=-1,
        image_seq_length=IMAGE_TOKENS,
    )
    return double(LlavaForConditionalGeneration(config))


MODELS = {"llava": llava, "llama": llama}


def picture(seed: int) -> ImageInputs:
    """One image of noise; the same seed gives the same image."""
    generator = torch.Generator().manual_seed(seed)
    return ImageInputs({"pixel_values": torch.randn(1, 3, SIDE, SIDE, generator=generator, dtype=torch.float64)})


def sample(
    prompt: list[int], responses: list[list[int]], pairs: list[tuple[int, int]], images: int = 0, seed: int = 0
) -> Sample:
    """A sample from plain lists; each image's tokens stand at the start of the prompt."""
    pictures = [picture(100 * seed + place) for place in range(images)]
    return woven([*pictures, *prompt], responses, pairs)


def woven(prompt: list[int | ImageInputs], responses: list[list[int]], pairs: list[tuple[int, int]]) -> Sample:
    """A sample whose prompt is given as tokens and images in the order in which they stand."""
    ids, image_of, images = [], [], []
    for part in prompt:
        if isinstance(part, ImageInputs):
            ids += [IMAGE] * IMAGE_TOKENS
            image_of += [len(images)] * IMAGE_TOKENS
            images.append(part)
        else:
            ids.append(part)
            image_of.append(-1)
    margins = tuple(0.5 + place for place in range(len(pairs)))
    responses = tuple(map(torch.tensor, responses))
    stand = torch.tensor(image_of) if images else None
    return Sample(torch.tensor(ids), responses, tuple(pairs), margins, tuple(images), stand)


@st.composite
def samples(draw, images: bool, most: int = 4) -> list[Sample]:
    """Prompts with K = 2 to 5 responses; few words, so that equal responses and prefixes of each other are common."""
    word = st.integers(EOS, 4)
    made = []
    for number in range(draw(st.integers(1, most))):
        responses = draw(st.lists(st.lists(word, min_size=1, max_size=4), min_size=2, max_size=5))
        if draw(st.booleans()):
            responses[-1] = responses[0]  # identical
        if draw(st.booleans()):
            responses[0] = responses[-1][:1]  # a prefix of a sibling, one token long
        pairs = draw(pairs_among(len(responses)))
        pictures = draw(st.integers(0, 2)) if images else 0  # text rows stand among image rows
        made.append(sample(draw(st.lists(word, min_size=1, max_size=5)), responses, pairs, pictures, number))
    return made


@st.composite
def trees(draw, images: bool, depth: int, most: int = 5) -> list[Sample]:
    """Samples whose prompts branch again and again: a tree of `depth` prompt pieces under each other.

    A piece is a few words or an image; a longer prompt may go on after a shorter one or after one of its responses,
    as in a conversation. There are few words and few images, so that more is equal than was planned.
    """
    words = st.lists(st.integers(EOS, 4), min_size=1, max_size=3)
    pieces = words | st.integers(0, 2).map(lambda seed: [picture(seed)]) if images else words
    made: list[Sample] = []

    def grow(beginning: list, level: int) -> None:
        prompt = [*beginning, *draw(pieces)]
        if level == depth or (len(made) < most and draw(st.booleans())):
            responses = draw(st.lists(words, min_size=2, max_size=4))
            if draw(st.booleans()):
                responses[-1] = [*responses[0], *draw(words)] if draw(st.booleans()) else responses[0]
            made.append(woven(prompt, responses, draw(pairs_among(len(responses)))))
            prompt = [*prompt, *responses[0]] if draw(st.booleans()) else prompt
        if level < depth:
            grow(prompt, level + 1)
            if len(made) < most and draw(st.booleans()):
                grow(prompt, level + 1)

    grow([], 1)
    return draw(st.permutations(made))


def pairs_among(responses: int) -> st.SearchStrategy:
    """One to four different pairs of responses."""
    every = [(i, j) for i in range(responses) for j in range(responses) if i < j]
    return st.lists(st.sampled_from(every), min_size=1, max_size=4, unique=True)


@dataclass
class Computed:
    """Values and every parameter's gradient of one way of computing."""

    values: Tensor
    gradients: dict[str, Tensor | None]


def differentiate(model: nn.Module, values: Tensor, scalar: Tensor | None = None) -> Computed:
    """Gradients of a scalar made of the values; by default one that weighs each response differently."""
    weights = torch.linspace(1, 2, values.numel(), dtype=values.dtype)
    scalar = (values * weights).sum() if scalar is None else scalar
    named = dict(model.named_parameters())
    gradients = torch.autograd.grad(scalar, list(named.values()), allow_unused=True)
    return Computed(values.detach(), dict(zip(named, gradients, strict=True)))


def assert_same(actual: Computed, expected: Computed, relative: float = 1e-9) -> None:
    """Values and each gradient tensor equal, relative to its own norm.

    A gradient that is zero by mathematics is rounding noise: a key's bias, held against the norm of the whole
    gradient instead; and everything, where a pair's responses are identical, held against float64's own rounding.
    """
    whole = torch.stack([g.norm() for g in expected.gradients.values() if g is not None]).norm()
    difference = (actual.values - expected.values).norm()
    assert difference <= relative * expected.values.norm(), f"values differ by {difference:.3g}"
    for name, gradient in expected.gradients.items():
        other = actual.gradients[name]
        if gradient is None or other is None:
            known = gradient if gradient is not None else other
            assert known is None or known.norm() == 0, f"{name} has a gradient in one computation only"
            continue
        difference, scale = (other - gradient).norm(), gradient.norm()
        noise = 1e-6 * relative * whole + 100 * torch.finfo(torch.float64).eps
        assert difference <= relative * scale + noise, f"{name}: {difference:.3g} of {scale:.3g}"


def in_samples_order(packs: list, values: list[Tensor]) -> Tensor:
    """Scores of several packs, put back into the order of the list that was packed."""
    rows = torch.cat([pack.sample_of for pack in packs])
    return torch.cat(values)[rows.argsort(stable=True)]


def pairs_of(samples: list[Sample]) -> Tensor:
    """All pairs, as rows of all responses in the samples' order."""
    pairs, first = [], 0
    for each in samples:
        pairs += [(first + w, first + r) for w, r in each.pairs]
        first += len(each.response_ids)
    return torch.tensor(pairs)
