"""Real transformers processors of every family, from configuration: small pictures, few tokens, nothing downloaded."""

from functools import cache

import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, ProcessorMixin
from transformers.models.smolvlm import processing_smolvlm

NEWLINES = ("\n\n", "\n\n\n", "\n\n\n\n")  # Gemma's vocabulary has runs of newlines as tokens


def blocks(image: str, before: str, after: str, begin: str = "", answer: str = "", end: str = "") -> str:
    """A chat template: each message between a role's opening and `after`; an image block is its marker."""
    return (
        f"{begin}{{% for m in messages %}}"
        f"{{% if m.role == 'assistant' %}}{answer}{{% else %}}{before}{{% endif %}}"
        "{% if m.content is string %}{{ m.content }}{% else %}{% for b in m.content %}"
        f"{{% if b.type == 'image' %}}{image}{{% else %}}{{{{ b.text }}}}{{% endif %}}"
        "{% endfor %}{% endif %}"
        f"{{% if m.role == 'assistant' %}}{end}{{% else %}}{after}{{% endif %}}"
        f"{{% endfor %}}{{% if add_generation_prompt %}}{answer}{{% endif %}}"
    )


VICUNA = blocks("<image>\n", "USER: ", " ", begin="<s>", answer="ASSISTANT:", end="</s>")
LLAVA_CHATML = blocks(
    "<image>\n", "<|im_start|>user\n", "<|im_end|>\n", answer="<|im_start|>assistant\n", end="<|im_end|>\n"
)
QWEN = blocks(
    "<|vision_start|><|image_pad|><|vision_end|>",
    "<|im_start|>user\n",
    "<|im_end|>\n",
    answer="<|im_start|>assistant\n",
    end="<|im_end|>\n",
)
INTERNVL = QWEN.replace("<|vision_start|><|image_pad|><|vision_end|>", "<IMG_CONTEXT>\n")
GEMMA = blocks(
    "<start_of_image>",
    "<start_of_turn>user\n",
    "<end_of_turn>\n",
    begin="<bos>",
    answer="<start_of_turn>model\n",
    end="<end_of_turn>\n",
)
IDEFICS = blocks(
    "<image>", "User:", "<end_of_utterance>\n", begin="<|im_start|>", answer="Assistant:", end="<end_of_utterance>\n"
)
MISTRAL = blocks("[IMG]", "[INST]", "[/INST]", begin="<s>", end="</s>")
PALIGEMMA = blocks("<image>", "", "", end="<eos>")
GLM = blocks(
    "<|begin_of_image|><|image|><|end_of_image|>", "<|user|>\n", "", begin="[gMASK]<sop>\n", answer="<|assistant|>\n"
)
COHERE = blocks(
    "<image>",
    "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
    "<|END_OF_TURN_TOKEN|>",
    begin="<s>",
    answer="<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    end="<|END_OF_TURN_TOKEN|>",
)


def tokenizer(
    template: str, special: tuple[str, ...] = (), bos: str = "<s>", plain: tuple[str, ...] = (), **named: str
) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer: a token for every byte, some words, and the family's own."""
    vocabulary = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = []
    for word in ("red", "Ġred", "the", "Ġthe", "Ġin", "ĊĊ", "Ġsquare"):
        merges += _merged(word, vocabulary)
    bpe = Tokenizer(models.BPE(vocabulary, merges))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_tokens([AddedToken(text, normalized=False) for text in plain])
    ends = {"bos_token": bos, "eos_token": "<eos>" if bos == "<bos>" else "</s>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        **ends,
        extra_special_tokens={**named, **{f"extra_{n}": text for n, text in enumerate(special)}},
        chat_template=template,
    )


def _merged(word: str, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """The merges that make a word of its letters."""
    pairs = [(word[:end], word[end]) for end in range(1, len(word))]
    for first, letter in pairs:
        vocabulary.setdefault(first + letter, len(vocabulary))
    return pairs


CHATML = ("<|im_start|>", "<|im_end|>")


def _llava() -> ProcessorMixin:
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    words = tokenizer(VICUNA, image_token="<image>")
    return transformers.LlavaProcessor(
        images,
        words,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=VICUNA,
    )


def _llava_next() -> ProcessorMixin:
    pinpoints = [[28, 56], [56, 28], [56, 56]]
    images = transformers.LlavaNextImageProcessor(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, image_grid_pinpoints=pinpoints
    )
    words = tokenizer(VICUNA, image_token="<image>")
    return transformers.LlavaNextProcessor(
        images,
        words,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=VICUNA,
    )


def _llava_onevision() -> ProcessorMixin:
    pinpoints = [[28, 28], [28, 56], [56, 28], [56, 56]]
    images = transformers.LlavaOnevisionImageProcessor(size={"height": 28, "width": 28}, image_grid_pinpoints=pinpoints)
    words = tokenizer(LLAVA_CHATML, CHATML, image_token="<image>", video_token="<video>")
    return transformers.LlavaOnevisionProcessor(
        images,
        words,
        transformers.LlavaOnevisionVideoProcessor(),
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=LLAVA_CHATML,
    )


def _qwen(processor: str, images: str, video: str, patch: int = 14) -> ProcessorMixin:
    tower = getattr(transformers, images)(
        patch_size=patch, size={"shortest_edge": (2 * patch) ** 2, "longest_edge": 9 * (2 * patch) ** 2}
    )
    words = tokenizer(
        QWEN,
        (*CHATML, "<|vision_start|>", "<|vision_end|>"),
        image_token="<|image_pad|>",
        video_token="<|video_pad|>",
    )
    return getattr(transformers, processor)(tower, words, getattr(transformers, video)(), chat_template=QWEN)


def _internvl() -> ProcessorMixin:
    images = transformers.GotOcr2ImageProcessor(size={"height": 28, "width": 28}, crop_to_patches=True, max_patches=4)
    words = tokenizer(
        INTERNVL,
        CHATML,
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    return transformers.InternVLProcessor(
        images, words, transformers.InternVLVideoProcessor(), image_seq_length=4, chat_template=INTERNVL
    )


def _gemma3() -> ProcessorMixin:
    images = transformers.Gemma3ImageProcessor(size={"height": 28, "width": 28})
    turns = ("<start_of_turn>", "<end_of_turn>")
    tokens = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    words = tokenizer(GEMMA, turns, bos="<bos>", plain=NEWLINES, **tokens)
    return transformers.Gemma3Processor(images, words, image_seq_length=4, chat_template=GEMMA)


def _idefics(processor: str, images: str, *video) -> ProcessorMixin:
    tower = getattr(transformers, images)(size={"longest_edge": 56}, max_image_size={"longest_edge": 28})
    places = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))
    special = ("<|im_start|>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *places)
    words = tokenizer(IDEFICS, special, image_token="<image>")
    return getattr(transformers, processor)(
        tower, words, *(getattr(transformers, name)() for name in video), image_seq_len=4, chat_template=IDEFICS
    )


def _smolvlm() -> ProcessorMixin:
    if processing_smolvlm.num2words is None:
        processing_smolvlm.num2words = str  # an extra package that says how many frames a video has
    return _idefics("SmolVLMProcessor", "SmolVLMImageProcessor", "SmolVLMVideoProcessor")


def _idefics2() -> ProcessorMixin:
    tower = transformers.Idefics2ImageProcessor(size={"shortest_edge": 28, "longest_edge": 56})
    words = tokenizer(IDEFICS, ("<|im_start|>",))
    return transformers.Idefics2Processor(tower, words, image_seq_len=3, chat_template=IDEFICS)


def _pixtral() -> ProcessorMixin:
    images = transformers.PixtralImageProcessor(size={"longest_edge": 56}, patch_size={"height": 14, "width": 14})
    words = tokenizer(MISTRAL, ("[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"))
    return transformers.PixtralProcessor(images, words, patch_size=7, spatial_merge_size=2, chat_template=MISTRAL)


def _paligemma() -> ProcessorMixin:
    images = transformers.SiglipImageProcessor(size={"height": 28, "width": 28})
    images.image_seq_length = 4
    words = tokenizer(PALIGEMMA, bos="<bos>", plain=NEWLINES, image_token="<image>")
    return transformers.PaliGemmaProcessor(images, words, chat_template=PALIGEMMA)


def _glm4v() -> ProcessorMixin:
    images = transformers.Glm4vImageProcessor(size={"shortest_edge": 28 * 28, "longest_edge": 2 * 9 * 28 * 28})
    special = (
        "[gMASK]",
        "<sop>",
        "<|user|>",
        "<|assistant|>",
        "<|begin_of_image|>",
        "<|end_of_image|>",
        "<|begin_of_video|>",
        "<|end_of_video|>",
    )
    words = tokenizer(GLM, special, image_token="<|image|>", video_token="<|video|>")
    return transformers.Glm4vProcessor(images, words, transformers.Glm4vVideoProcessor(), chat_template=GLM)


TURNS = ("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>")


def _aya_vision() -> ProcessorMixin:
    images = transformers.GotOcr2ImageProcessor(size={"height": 28, "width": 28}, crop_to_patches=True, max_patches=4)
    tiles = ("<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>", "TILE", "TILE_GLOBAL")
    words = tokenizer(COHERE, (*TURNS, *tiles, "<image>"))
    return transformers.AyaVisionProcessor(
        images, words, patch_size=7, img_size=28, downsample_factor=2, chat_template=COHERE
    )


def _cohere2_vision() -> ProcessorMixin:
    images = transformers.Cohere2VisionImageProcessor(size={"height": 28, "width": 28}, max_patches=4, patch_size=2)
    tokens = {"image_token": "<image>", "boi_token": "<|START_OF_IMG|>", "eoi_token": "<|END_OF_IMG|>"}
    words = tokenizer(COHERE, TURNS, img_line_break_token="<|IMG_LINE_BREAK|>", **tokens)
    return transformers.Cohere2VisionProcessor(images, words, chat_template=COHERE)


FAMILIES = {
    "llava": _llava,
    "vipllava": _llava,  # reads with LlavaProcessor
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "qwen2_vl": lambda: _qwen("Qwen2VLProcessor", "Qwen2VLImageProcessor", "Qwen2VLVideoProcessor"),
    "qwen2_5_vl": lambda: _qwen("Qwen2_5_VLProcessor", "Qwen2VLImageProcessor", "Qwen2VLVideoProcessor"),
    "qwen3_vl": lambda: _qwen("Qwen3VLProcessor", "Qwen2VLImageProcessor", "Qwen3VLVideoProcessor", patch=16),
    "internvl": _internvl,
    "gemma3": _gemma3,
    "smolvlm": _smolvlm,
    "idefics3": lambda: _idefics("Idefics3Processor", "Idefics3ImageProcessor"),
    "idefics2": _idefics2,
    "mistral3": _pixtral,
    "paligemma": _paligemma,
    "glm4v": _glm4v,
    "aya_vision": _aya_vision,
    "cohere2_vision": _cohere2_vision,
}


@cache
def processor(family: str) -> ProcessorMixin:
    """A family's processor, made once."""
    return FAMILIES[family]()
