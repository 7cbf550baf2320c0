"""What two conversations share: turns of messages or transcripts, or the beginning of two plain texts."""

import re

SPEAKERS = {"Human": "user", "Assistant": "assistant"}
TURN = re.compile(r"\n\n(Human|Assistant): ?")


def turns(transcript: str) -> list[dict]:
    r"""Messages of a `\n\nHuman: ...\n\nAssistant: ...` transcript, as in HH-RLHF; none if it is not one.

    Example:
        >>> turns("\n\nHuman: Hi\n\nAssistant: Hello")
        [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello'}]
    """
    before, *parts = TURN.split(transcript)
    if before.strip() or not parts:
        return []
    speakers, texts = parts[::2], parts[1::2]
    return [{"role": SPEAKERS[s], "content": text.strip()} for s, text in zip(speakers, texts, strict=True)]


def split_shared_turns(chosen: list[dict], rejected: list[dict]) -> tuple[list[dict], tuple[list[dict], list[dict]]]:
    """The prompt that two conversations share, and how each goes on.

    The prompt ends before the first message that differs, and with somebody other than the assistant, so
    that what follows is a response.
    """
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    while shared and chosen[shared - 1]["role"] == "assistant":
        shared -= 1
    return chosen[:shared], (chosen[shared:], rejected[shared:])


def split_shared_text(chosen: str, rejected: str) -> tuple[str, tuple[str, str]]:
    """The prompt that two plain texts share, and how each goes on; TRL's rule (`trl.extract_prompt`).

    The prompt ends before the first character that differs, and before a space there, which belongs to the
    word that follows. Of a text that begins the other, the last character is left as its response.

    Example:
        >>> split_shared_text("The sky is blue.", "The sky is green.")
        ('The sky is', (' blue.', ' green.'))
    """
    pairs = enumerate(zip(chosen, rejected, strict=False))
    shared = next((place for place, (a, b) in pairs if a != b), None)
    if shared is None:
        shared = max(min(len(chosen), len(rejected)) - 1, 0)
    elif shared and chosen[shared - 1] == " ":
        shared -= 1
    return chosen[:shared], (chosen[shared:], rejected[shared:])
