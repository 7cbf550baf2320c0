"""Generated preference data: small pictures, questions about them, and answers that are right by degrees.

No downloads: pictures are drawn, a tokenizer is trained on the spot, and a LLaVA small enough to be trained
from scratch in half a minute is described. An answer cannot be guessed without its picture: every question asks
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

# Bright on dark: a shape then stands out the same way in every colour, which a tower of one layer can learn.
COLOURS = {"red": (255, 90, 90), "green": (90, 255, 90), "blue": (110, 110, 255), "yellow": (245, 245, 60)}
GROUNDS = {"black": (0, 0, 0), "navy": (0, 0, 70), "brown": (70, 35, 0)}
SHAPES = ("square", "ring", "cross")
ROWS = ("top", "bottom")
COLUMNS = ("left", "right")
COUNTS = {"one": 1, "two": 2, "three": 3, "four": 4}

ATTRIBUTES = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "row": ROWS,
    "column": COLUMNS,
    "count": tuple(COUNTS),
    "ground": tuple(f"on {ground}" for ground in GROUNDS),
}
QUESTIONS = {
    "What is there?": ("colour", "shape"),
    "Where is it?": ("row", "column"),
    "How many, and on what ground?": ("count", "ground"),
    "How many of which colour?": ("count", "colour"),
}

CELL = 32  # pixels of the drawing; a corner of the picture is 2 x 2 cells, each with room for one shape
PIXELS = 48  # side of what the vision tower sees
PATCH = 12  # one patch, so one image token, a cell
TRAINING_IMAGES = 1250

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
        questions: how many of `QUESTIONS` to ask about each.

    Returns:
        Rows as `vlmpack.processors.PreferenceProcessor` takes them. A score is the number of attributes
        an answer has right: 2, 1, 1 or 0, so five pairs and a tie.

    Example:
        >>> row = rows(1, seed=0)[0]
        >>> row["prompt"] in QUESTIONS, sorted(row["scores"])
        (True, [0.0, 1.0, 1.0, 2.0])
    """
    random = Random(seed)
    return [row for number in range(images) for row in _picture_rows(f"{seed}-{number}", questions, random)]


def with_other_pictures(rows: list[dict]) -> list[dict]:
    """The same questions and answers, each about a picture half the list away: nothing is left to look at."""
    return [{**row, "images": rows[(place + len(rows) // 2) % len(rows)]["images"]} for place, row in enumerate(rows)]


def _picture_rows(name: str, questions: int, random: Random) -> Iterator[dict]:
    truth = {attribute: random.choice(values) for attribute, values in ATTRIBUTES.items()}
    picture = draw(truth, random)
    for place, prompt in enumerate(random.sample(list(QUESTIONS), questions)):
        answers = _answers(truth, QUESTIONS[prompt], random)
        yield {
            "id": f"{name}-{place}",
            "images": [picture],
            "prompt": prompt,
            "responses": [answer for answer, _ in answers],
            "scores": [score for _, score in answers],
        }


def _answers(truth: dict[str, str], asked: tuple[str, str], random: Random) -> list[tuple[str, float]]:
    """{right, wrong} x {right, wrong}, shuffled: an answer's text says nothing about its score."""
    choices = []
    for attribute in asked:
        wrong = random.choice([value for value in ATTRIBUTES[attribute] if value != truth[attribute]])
        choices.append([(truth[attribute], 1.0), (wrong, 0.0)])
    answers = [(f"{first} {second}", a + b) for (first, a), (second, b) in product(*choices)]
    return random.sample(answers, len(answers))


def draw(truth: dict[str, str], random: Random) -> Image.Image:
    """A picture with the shapes in one corner. Sizes and places vary a little, so no two pictures are equal."""
    picture = Image.new("RGB", (4 * CELL, 4 * CELL), GROUNDS[truth["ground"].removeprefix("on ")])
    canvas = ImageDraw.Draw(picture)
    for cell in random.sample(range(4), COUNTS[truth["count"]]):
        radius = CELL * random.uniform(0.38, 0.46)
        x = CELL * (2 * COLUMNS.index(truth["column"]) + cell % 2 + random.uniform(0.47, 0.53))
        y = CELL * (2 * ROWS.index(truth["row"]) + cell // 2 + random.uniform(0.47, 0.53))
        _draw_shape(canvas, truth["shape"], x, y, radius, COLOURS[truth["colour"]])
    return picture


def _draw_shape(canvas: ImageDraw.ImageDraw, shape: str, x: float, y: float, radius: float, colour: tuple) -> None:
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "square":
        canvas.rectangle(box, colour)
    elif shape == "ring":
        canvas.ellipse(box, outline=colour, width=round(radius * 0.4))
    else:
        canvas.line((x - radius, y, x + radius, y), colour, round(radius * 0.5))
        canvas.line((x, y - radius, x, y + radius), colour, round(radius * 0.5))


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
    for prompt, (first, second) in QUESTIONS.items():
        yield f"USER: \n{prompt} ASSISTANT:"
        yield from (f" {a} {b}" for a, b in product(ATTRIBUTES[first], ATTRIBUTES[second]))


def processor() -> LlavaProcessor:
    """What a LLaVA checkpoint would come with, at PIXELS x PIXELS; the mean is about that of the pictures."""
    images = CLIPImageProcessor(
        size={"shortest_edge": PIXELS},
        crop_size={"height": PIXELS, "width": PIXELS},
        image_mean=[0.2] * 3,
        image_std=[0.5] * 3,
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
    """A LLaVA of 200,000 parameters: CLIP in front of Llama, both to be trained from scratch."""
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
        image_seq_length=(PIXELS // PATCH) ** 2,
        vision_feature_layer=-1,
        pad_token_id=words.pad_token_id,
        dtype="float32",
    )
