"""`verify` needs no knowledge of a family: it says what is exact, and names what is not."""

import json
import re
from dataclasses import replace
from functools import cache

import pytest
import torch
from transformers import AutoConfig

from vlmpack import families, layout, masks, model, plan, vision
from vlmpack.proof.verify import verify


def leak_siblings(monkeypatch):
    """`q < reach[k]` removed, for both backends."""
    monkeypatch.setattr(masks, "path_causal", lambda reach: lambda b, h, q, k: k <= q)
    monkeypatch.setattr(plan, "runs", lambda forest: (plan.Run(tuple(range(len(forest.parents))), ()),))


def count_positions_on(monkeypatch):
    """Positions that do not restart after the prompt."""
    monkeypatch.setattr(layout, "position", lambda forest: torch.arange(forest.tokens))


def count_tokens_for_mrope(monkeypatch):
    """Each response goes on at the number of tokens before it, not at the largest position + 1."""
    monkeypatch.setattr(model, "position_ids", lambda base, pack: pack.position_ids)


def shift_plainly(monkeypatch):
    """Every token predicted from the index before it."""
    monkeypatch.setattr(layout, "previous", lambda forest: torch.arange(forest.tokens) - 1)


def swap_images(monkeypatch):
    """The first two images' features in each other's places."""

    def swapped(pack):
        return replace(pack, placements=tuple({0: 1, 1: 0}.get(place, place) for place in pack.placements))

    monkeypatch.setattr(model, "placed", lambda base, pack: vision.placed(base, swapped(pack)))


def window_by_index(monkeypatch):
    """A sliding window measured in the pack, not on the path."""
    monkeypatch.setattr(masks, "within", lambda window, position: lambda b, h, q, k: q - k < window)


FAULTS = [
    (leak_siblings, "llama", "siblings see each other"),
    (count_positions_on, "llama", "first difference: the rotary positions"),
    (count_tokens_for_mrope, "qwen2_5_vl", "first difference: the rotary M-RoPE positions"),
    (shift_plainly, "llama", "first difference: after the last layer.*predicted from the wrong ones"),
    (
        swap_images,
        "qwen2_5_vl",
        "first difference: the embeddings of image tokens, so image features stand in the wrong",
    ),
    (window_by_index, "mistral", r"first difference: layer 0 \(attention, window of 3\)"),
]


@cache
def exact(model_type: str, settings: str = "{}") -> bool:
    """Whether the family is exact as it is; asked once."""
    return verify(AutoConfig.for_model(model_type, **json.loads(settings))).exact


@pytest.mark.parametrize(("fault", "model_type", "named"), FAULTS, ids=[fault.__name__ for fault, *_ in FAULTS])
def test_a_planted_fault_is_found_and_named(fault, model_type, named, monkeypatch):
    assert exact(model_type)
    fault(monkeypatch)
    report = verify(AutoConfig.for_model(model_type))
    assert report.outcome == "different"
    assert report.difference > 1e-6
    assert re.search(named, report.reason, re.DOTALL), report.reason


VISION = {"vision_config": {}, "text_config": {"use_bidirectional_attention": "vision"}}
RULES = [
    ("gemma3", {}, {"both_ways": None}),
    ("gemma3", {}, {"window_cuts_blocks": False}),
    ("shieldgemma2", {}, {"both_ways": None}),
    ("gemma4", VISION, {"both_ways": None}),
    ("gemma4", VISION, {"layers": None}),
    ("gemma4", VISION, {"window_cuts_blocks": False}),
    ("gemma4", {"vision_config": {}}, {"only_if": None}),
    ("gemma4_unified", VISION, {"window_cuts_blocks": True}),
    ("paligemma", {}, {"both_ways": None}),
]


@pytest.mark.parametrize(("model_type", "settings", "change"), RULES, ids=str)
def test_a_rule_of_the_table_that_is_wrong_is_found(model_type, settings, change, monkeypatch):
    assert exact(model_type, json.dumps(settings))
    wrong = [replace(f, **change) if f.model_type == model_type else f for f in families.FAMILIES]
    monkeypatch.setattr(families, "FAMILIES", wrong)
    assert verify(AutoConfig.for_model(model_type, **settings)).outcome in ("different", "refused")
