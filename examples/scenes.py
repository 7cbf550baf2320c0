"""Generated preference data: small pictures, questions about them, and answers that are right by degrees.

No downloads: pictures are drawn, a tokenizer is trained on the spot, and a LLaVA small enough to be trained
from scratch in a minute is described. An answer cannot be guessed without its picture: every question asks
for two independent attributes, each uniform beforehand, and the four answers combine {right, wrong} with
{right, wrong}. Whatever reads only text orders half of the pairs right.
"""

from collections.abc import Iterator
from itertools import product
from random import Random

from PIL import Image, ImageDraw
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

# Equally bright: what shape a patch holds is then one linear look at it, whatever the colour.
COLOURS = {"red": (235, 35, 35), "green": (45, 190, 70), "blue": (25, 60, 220), "purple": (160, 5, 140)}
GROUNDS = {"white": (250, 250, 250), "grey": (210, 210, 210)}
SHAPES = ("square", "ring", "cross")
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "centre", "right")
COUNTS = {1: "one", 2: "two", 3: "three", 4: "four"}

CELL = 64  # pixels of the drawing; the processor scales the picture down to PIXELS
PATCH = 8  # one patch, so one image token, a cell
PIXELS = PATCH * len(ROWS)

WHAT = "What is at the {} {}?"
WHERE = "Where is the {} {}?"
COUNT = "How many shapes, and on what ground?"

TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ message['role'] | upper }}: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for block in message['content'] %}"
    "{{ '<image>\n' if block['type'] == 'image' else block['text'] }}"
    "{% endfor %}{% endif %}"
    "{{ eos_token if message['role'] == 'assistant' else ' ' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def rows(images: int, *, seed: int, questions: int = 4) -> list[dict]:
    """Questions about random pictures, each with four graded answers.

    Args:
        images: how many pictures to draw.
        seed: the same seed gives the same rows, and more images only add to them.
        questions: at most this many a picture; the first asks for the count.

    Returns:
        Rows as `vlmpack.processors.PreferenceProcessor` takes them. A score is the number of attributes
        an answer has right: 2, 1, 1 or 0, so five pairs and a tie.

    Example:
        >>> row = rows(1, seed=0)[0]
        >>> row["prompt"], sorted(row["scores"])
        ('How many shapes, and on what ground?', [0.0, 1.0, 1.0, 2.0])
    """
    random = Random(seed)
    return [row for number in range(images) for row in _picture_rows(f"{seed}-{number}", questions, random)]


def _picture_rows(name: str, questions: int, random: Random) -> Iterator[dict]:
    """The rows of one picture. Which are asked may depend on the picture, never on what an answer says."""
    ground = random.choice(list(GROUNDS))
    items = _items(random)
    picture = draw(items, ground, random)
    what = [(WHAT.format(*place), item, (COLOURS, SHAPES)) for place, item in items.items()]
    where = [(WHERE.format(*item), place, (ROWS, COLUMNS)) for place, item in items.items()]
    count = (COUNT, (COUNTS[len(items)], f"on {ground}"), (COUNTS.values(), [f"on {g}" for g in GROUNDS]))
    others = random.sample(what + where, min(questions - 1, 2 * len(items)))
    for index, (prompt, right, pools) in enumerate([count, *others]):
        responses, scores = zip(*_answers(right, pools, random), strict=True)
        yield {
            "id": f"{name}-{index}",
            "images": [picture],
            "prompt": prompt,
            "responses": list(responses),
            "scores": list(scores),
        }


def _items(random: Random) -> dict[tuple[str, str], tuple[str, str]]:
    """(row, column) → (colour, shape), no item twice. The count is drawn first, so that it is uniform."""
    count = random.choice(list(COUNTS))
    places = random.sample(list(product(ROWS, COLUMNS)), count)
    return dict(zip(places, random.sample(list(product(COLOURS, SHAPES)), count), strict=True))


def _answers(right: tuple[str, str], pools: tuple, random: Random) -> list[tuple[str, float]]:
    """{right, wrong} x {right, wrong}, shuffled: an answer's text says nothing about its score."""
    wrong = [random.choice([value for value in pool if value != r]) for r, pool in zip(right, pools, strict=True)]
    answers = [(" ".join(a), sum(map(str.__eq__, a, right)) * 1.0) for a in product(*zip(right, wrong, strict=True))]
    return random.sample(answers, len(answers))


def draw(items: dict[tuple[str, str], tuple[str, str]], ground: str, random: Random) -> Image.Image:
    """A picture of the items. Sizes and centres vary, so two pictures of the same items still differ."""
    picture = Image.new("RGB", (CELL * len(COLUMNS), CELL * len(ROWS)), GROUNDS[ground])
    canvas = ImageDraw.Draw(picture)
    for (row, column), (colour, shape) in items.items():
        radius = CELL * random.uniform(0.38, 0.42)
        x = CELL * (COLUMNS.index(column) + random.uniform(0.48, 0.52))
        y = CELL * (ROWS.index(row) + random.uniform(0.48, 0.52))
        box = (x - radius, y - radius, x + radius, y + radius)
        if shape == "square":
            canvas.rectangle(box, COLOURS[colour])
        elif shape == "ring":
            canvas.ellipse(box, outline=COLOURS[colour], width=round(radius * 0.4))
        else:
            canvas.line((x - radius, y, x + radius, y), COLOURS[colour], round(radius * 0.3))
            canvas.line((x, y - radius, x, y + radius), COLOURS[colour], round(radius * 0.3))
    return picture


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE over the sentences above: their words are one token each, other text still encodes."""
    special = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(_sentences(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
        chat_template=TEMPLATE,
    )


def _sentences() -> Iterator[str]:
    """Everything a row can say, as the template says it."""
    items, places = list(product(COLOURS, SHAPES)), list(product(ROWS, COLUMNS))
    prompts = [COUNT, *(WHAT.format(*place) for place in places), *(WHERE.format(*item) for item in items)]
    answers = [*items, *places, *((count, "on", ground) for count in COUNTS.values() for ground in GROUNDS)]
    yield from (f"USER: \n{prompt} ASSISTANT:" for prompt in prompts)
    yield from (" " + " ".join(answer) for answer in answers)


def processor() -> LlavaProcessor:
    """What a LLaVA checkpoint would come with, at PIXELS x PIXELS.

    The mean puts the grounds near zero. The large deviation lets a patch start about as loud as the
    embedding of its place, which CLIP initializes small: otherwise "where" is learned long after "what".
    """
    images = CLIPImageProcessor(
        size={"shortest_edge": PIXELS},
        crop_size={"height": PIXELS, "width": PIXELS},
        image_mean=[0.9] * 3,
        image_std=[4.0] * 3,
    )
    return LlavaProcessor(
        images,
        tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # the class token, which "default" takes away again
        chat_template=TEMPLATE,
    )


def llava_config(processor: LlavaProcessor, *, hidden: int = 64) -> LlavaConfig:
    """The smallest LLaVA that learns this in a minute: CLIP in front of Llama, both from scratch."""
    width = {"hidden_size": hidden, "intermediate_size": 2 * hidden, "num_attention_heads": 4}
    words = processor.tokenizer
    vision = CLIPVisionConfig(**width, num_hidden_layers=1, image_size=PIXELS, patch_size=PATCH)
    text = LlamaConfig(
        **width,
        num_hidden_layers=2,
        initializer_range=hidden**-0.5,  # 0.02 suits thousands of channels; here it would start too small
        vocab_size=len(words),
        max_position_embeddings=512,
        pad_token_id=words.pad_token_id,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        dtype="float32",
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=processor.image_token_id,
        image_seq_length=len(ROWS) * len(COLUMNS),
        vision_feature_layer=-1,
        pad_token_id=words.pad_token_id,
        dtype="float32",
    )
