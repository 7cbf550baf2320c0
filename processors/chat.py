"""A chat template's text for a prompt, and for each response as the prompt's continuation."""

from typing import Any

from transformers import PreTrainedTokenizerBase, ProcessorMixin

from vlmpack.processors.image_tags import blocks_at
from vlmpack.processors.messages import Message, RowError


class TemplateError(ValueError):
    """A chat template that cannot be split into a prompt and its continuations."""


def render_prompt(renderer: ProcessorMixin | PreTrainedTokenizerBase, prompt: list[Message]) -> str:
    """The text of a prompt up to where the assistant begins to speak.

    Args:
        renderer: a processor (content becomes blocks) or a tokenizer (content becomes plain text).
        prompt: messages.

    Raises:
        TemplateError: there is no chat template, or it refuses the messages.
    """
    return _render(renderer, prompt, add_generation_prompt=True)


def render_response(
    renderer: ProcessorMixin | PreTrainedTokenizerBase,
    prompt: list[Message],
    prompt_text: str,
    response: list[Message],
) -> str:
    """The text of a prompt with one response, checked to begin with the prompt's own text.

    Raises:
        TemplateError: the template writes the prompt differently when an answer follows.
    """
    text = _render(renderer, [*prompt, *response], add_generation_prompt=False)
    if not text.startswith(prompt_text):
        raise TemplateError(
            f"the chat template does not keep the prompt as a prefix of prompt + response:\n"
            f"  prompt alone ends   {prompt_text[-60:]!r}\n"
            f"  with the response   {text[max(0, len(prompt_text) - 60) : len(prompt_text) + 20]!r}\n"
            f"Use a template that writes the prompt the same way in both cases."
        )
    return text


def place_images(prompt: list[Message], images: int, image_token: str) -> list[Message]:
    """Messages with one image block for every image.

    Plain text may say where its images stand by the image token; if nothing says it, they stand before the
    first user message.

    Raises:
        RowError: the messages have more or fewer places than there are images.
    """
    placed = [{**message, "content": blocks_at(message["content"], image_token)} for message in prompt]
    places = sum(block.get("type") == "image" for message in placed for block in message["content"])
    if places == 0 and images:
        first = next((m for m in placed if m["role"] == "user"), placed[0])
        first["content"] = [{"type": "image"} for _ in range(images)] + first["content"]
    elif places != images:
        raise RowError(f"the prompt has places for {places} images and the row holds {images}; make them equal")
    return placed


def _render(renderer, conversation: list[Message], *, add_generation_prompt: bool) -> str:
    if not renderer.chat_template:
        raise TemplateError(
            f"{type(renderer).__name__} has no chat template; set its chat_template, or load the instruct version"
        )
    shape = _as_blocks if isinstance(renderer, ProcessorMixin) else _as_text
    conversation = [{**message, "content": shape(message["content"])} for message in conversation]
    try:
        return renderer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=add_generation_prompt)
    except Exception as error:  # whatever a template raises, in Jinja's own words
        raise TemplateError(f"the chat template refuses the conversation: {error}") from error


def _as_blocks(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _as_text(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else "".join(block.get("text") or "" for block in content)
