"""The model card of a reward model: what it is, how it is used, what it was trained on, how good it is."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

CARD = "README.md"
_SIGN = "library_name: vlmpack"
KNOWN, END = "<!-- what is known of its training -->", "<!-- end of it -->"
UNKNOWN = "Nothing is known of its training."


def sections_in(text: str) -> tuple[str, ...]:
    """What a card of ours says of training data, saving and accuracy, so that the next card says it again.

    Args:
        text: of a card.

    Returns:
        One text, or none if the card is not ours or knows nothing.
    """
    if _SIGN not in text.split("\n---\n")[0] or KNOWN not in text:
        return ()
    known = text.split(KNOWN, 1)[1].split(END, 1)[0].strip()
    return () if known in ("", UNKNOWN) else (known,)


def plain_card(model: Any, served: Any = None, sections: Sequence[str] = ()) -> str:
    """A card in Markdown, with its metadata as the hub reads them.

    Args:
        model: a `RewardModel`.
        served: the configuration under which plain transformers loads the folder too, if it does.
        sections: of what else is known, such as the training data, the saving and the accuracy.
    """
    base = model.model.name_or_path
    metadata = [_SIGN, "tags:", "- reward-model", "- vlmpack", "pipeline_tag: text-classification"]
    metadata += [f"base_model: {base}"] if base and not base.startswith((".", "/")) else []
    return "\n\n".join(
        [
            "\n".join(["---", *metadata, "---"]),
            "# Reward model",
            _what(model),
            _USE,
            _others(model, served),
            KNOWN,
            *(sections or [UNKNOWN]),
            END,
            f"Written by vlmpack {version('vlmpack')}.\n",
        ]
    )


def _parameters(model: Any) -> int:
    """Weights of a model, also one whose weights other ranks hold."""
    return sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in model.parameters())


def _what(model: Any) -> str:
    config = model.config
    head = "a linear layer" if config.head == "linear" else "two layers"
    reads = "last token" if config.pooling == "last" else "tokens, averaged"
    lines = [
        f"A {config.backbone_config.model_type} backbone of {_parameters(model):,} parameters and {head} on the "
        f"hidden state of each response's {reads}. Higher is better; the difference of two rewards is the logit of "
        f"the probability that the first response is preferred (Bradley-Terry)."
    ]
    if (config.reward_mean, config.reward_std) != (0.0, 1.0):
        lines.append(
            f"`score` gives normalised rewards, (reward - {config.reward_mean:.6g}) / {config.reward_std:.6g}: mean 0 "
            f"and standard deviation 1 over a calibration set. The model called on a pack gives rewards as they are."
        )
    return "\n\n".join(lines)


_USE = """## Use

```python
import vlmpack

reward_model = vlmpack.RewardModel.from_pretrained("path/or/name")
row = {"images": ["cat.png"], "prompt": "What is this?", "responses": ["A cat.", "A dog."]}
reward_model.score([row])  # a reward for each response
reward_model.rank(row)  # the best first
reward_model.compare(row, 0, 1)  # the probability that response 0 is better than 1
```

All responses of a row share one encoding of their prompt and its images. `vlmpack score`, `vlmpack rank` and
`vlmpack eval` do the same with files."""


def _others(model: Any, served: Any) -> str:
    if served is None:
        seen = getattr(model.config.backbone_config, "vision_config", None) is not None
        why = "its backbone sees images" if seen else "its backbone or its head is none of theirs"
        return (
            f"## Other software\n\nOnly vlmpack loads this folder: none of transformers' sequence classifiers computes "
            f"it ({why})."
        )
    padding = (
        "Rows may be batched."
        if served.pad_token_id is not None
        else "Give it one row at a time: transformers reads the last token that is not padding, and the tokenizer has "
        "no padding token that ends no response."
    )
    return (
        f"## Other software\n\nPlain transformers loads this folder as `AutoModelForSequenceClassification` "
        f"({served.architectures[0]}, one label). Its logit is the reward, not normalised; equal in float32. Its input "
        f"is prompt and response by the chat template, without a generation prompt. {padding} Servers that know that "
        f"class, such as vLLM, were not tried."
    )
