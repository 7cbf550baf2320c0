"""Where packed and unpacked part is named by stage, token and response."""

import re
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from tiny import llama, woven

import vlmpack
from vlmpack.proof.difference import diagnosis

MADE = [woven([1, 2, 3], [[4, 5], [6], [4, 7, 8]], [(0, 1)])]
# the pack's tokens: prompt 0-2, the common 4 is token 3, then 5, then 7 8, then the second response's 6

STAGES = {
    "embeddings": ("embed_tokens", 4, "the embeddings of text, so something but the token itself goes into them, .*at token 4 of 5 of response 0 \\(token 4 of the pack\\)"),
    "first layer": ("layers.0", 6, "layer 0 \\(attention\\), .*at token 5 of 6 of response 2 \\(token 6 of the pack\\)"),
    "second layer": ("layers.1", 7, "layer 1 \\(attention\\), .*at token 3 of 4 of response 1 \\(token 7 of the pack\\)"),
    "shared tokens": ("layers.1", 3, "layer 1 .*at token 3 of 5 of response 0 \\(token 3 of the pack\\)"),
}  # fmt: skip


@contextmanager
def shifted(model, stage: str, token: int, length: int):
    """One token of what a part of the decoder gives is moved, in sequences of one length only: the pack."""

    def move(_, __, output):
        if output.shape[1] == length:
            output = output.clone()
            output[0, token] += 1e-3
        return output

    handle = model.model.get_submodule(stage).register_forward_hook(move)
    yield
    handle.remove()


@pytest.mark.parametrize(("stage", "token", "said"), STAGES.values(), ids=STAGES)
def test_the_first_stage_token_and_response_that_differ_are_named(stage, token, said):
    model = vlmpack.enable(llama())
    (pack,) = vlmpack.pack(MADE)
    with shifted(model, stage, token, pack.tokens):
        text = diagnosis(model, MADE, pack)
    assert len(text.splitlines()) == 1
    assert re.search(f"^first difference: {said}$", text), text


def test_positions_are_told_from_layers():
    model = vlmpack.enable(llama())
    (pack,) = vlmpack.pack(MADE)
    moved = replace(pack, position_ids=pack.position_ids + (torch.arange(pack.tokens) == 6))
    text = diagnosis(model, MADE, moved)
    assert text.startswith("first difference: the rotary positions: they are not those of the response on its own")
    assert text.endswith("at token 5 of 6 of response 2 (token 6 of the pack)")


def test_equal_states_leave_the_prediction():
    model = vlmpack.enable(llama())
    (pack,) = vlmpack.pack(MADE)
    assert diagnosis(model, MADE, pack).startswith(
        "first difference: after the last layer. All hidden states are equal"
    )
