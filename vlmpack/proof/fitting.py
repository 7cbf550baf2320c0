"""Fields of a small configuration that follow from others, or that it must not leave open."""

from collections.abc import Sequence

from transformers import PretrainedConfig

WIDTH, NARROW, HEADS = 64, 48, 4
PATCH, GRID = 4, 4  # an image of 16 patches
WINDOW, CHUNK = 3, 8  # tokens; short rows must be longer than these, and an image longer than the window

# What a configuration's own defaults leave open, though its model cannot do without.
LEFT_OPEN = {
    "head_dim": WIDTH // HEADS,
    "num_key_value_heads": HEADS,
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 16,
    "indexer_budget": 8,
    "indexer_compress_ratio": 2,
}
LEFT_OPEN_WITH_EXPERTS = {
    "num_experts_per_tok": 2,
    "moe_intermediate_size": NARROW,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
}


def fill_in(part: PretrainedConfig) -> None:
    """Give fields that say nothing a small value, where the model needs one.

    Args:
        part: a small configuration, changed in place.
    """
    fields = part.__dict__
    experts = any(
        isinstance(fields.get(name), int) for name in ("n_routed_experts", "num_experts", "num_local_experts")
    )
    for name, value in {**LEFT_OPEN, **(LEFT_OPEN_WITH_EXPERTS if experts else {})}.items():
        if name in fields and fields[name] is None:
            fields[name] = value
    slides = "sliding_attention" in (fields.get("layer_types") or ()) or "num_sliding_attention_heads" in fields
    if slides and "sliding_window" in fields and fields["sliding_window"] is None:
        fields["sliding_window"] = WINDOW
    rope = fields.get("rope_parameters")
    known = "mrope_section" in (getattr(part, "ignore_keys_at_rope_validation", None) or ())
    if isinstance(rope, dict) and (known or part.model_type.startswith("paddleocr")):
        for each in [value for value in rope.values() if isinstance(value, dict)] or [rope]:
            each.setdefault("mrope_section", [3, 3, 2])  # models fall back on numbers that fit large heads only


def fit_together(part: PretrainedConfig, before: dict) -> None:
    """Let fields that follow from others follow from the small ones.

    Args:
        part: a small configuration, changed in place.
        before: its fields when it was large.
    """
    _fit_heads(part.__dict__, before)
    _fit_mixers(part.__dict__, before)
    _fit_vision(part.__dict__, before)
    for name in ("rope_parameters", "rope_scaling"):
        _fit_sections(part.__dict__.get(name), part.__dict__)


def _fit_heads(fields: dict, before: dict) -> None:
    if before.get("qk_rope_head_dim") is None or before.get("qk_nope_head_dim") is None:
        return
    whole = fields["qk_rope_head_dim"] + fields["qk_nope_head_dim"]
    times, rest = divmod(before.get("head_dim") or 0, before["qk_rope_head_dim"] or 1)
    if "qk_head_dim" in fields:
        fields["qk_head_dim"] = whole
    if before.get("head_dim"):  # the rotated part of a head, a multiple of it, or the whole of it
        is_whole = rest or before["head_dim"] == before.get("qk_head_dim")
        fields["head_dim"] = whole if is_whole else times * fields["qk_rope_head_dim"]


def _fit_mixers(fields: dict, before: dict) -> None:
    """State-space layers and compressed attention."""
    if "expand" in fields and "state_size" in fields and "num_heads" in fields:
        fields["num_heads"] = fields["expand"] * WIDTH // fields["head_dim"]
    if "mamba_d_ssm" in fields:
        fields["mamba_d_ssm"] = fields["mamba_n_heads"] * fields["mamba_d_head"]
    if before.get("attention_hidden_size") == 2 * before.get("hidden_size", 0):  # of two layers' states side by side
        fields.update(attention_hidden_size=2 * WIDTH, attention_head_dim=2 * WIDTH // HEADS)
    if isinstance(rates := fields.get("compress_rates"), dict):
        fields["compress_rates"] = {kind: min(rate, 4) for kind, rate in rates.items()}


def _fit_vision(fields: dict, before: dict) -> None:
    stacked = before.get("deepstack_layer_map") or ()
    if stacked:
        fields["deepstack_layer_map"] = [(max(-2, min(each[0], 1)), layer) for layer, each in enumerate(stacked)]
    if "spatial_target_layers" in fields:
        fields["spatial_target_layers"] = [
            len(stacked) + place for place in range(len(before["spatial_target_layers"]))
        ]
    if "merged_hidden_size" in fields:
        fields["merged_hidden_size"] = 4 * WIDTH
    if "vision_config" in fields and "out_hidden_size" in fields:  # of merged patches, before they are projected
        fields["out_hidden_size"] = 4 * WIDTH
    if "pixel_shuffle_ratio" in fields:
        fields["intermediate_size"] = int(WIDTH / fields["pixel_shuffle_ratio"] ** 2)
    if "channel_multiplier" in fields and "hidden_size" in fields:
        fields["hidden_size"] = fields["base_channels"] * fields["channel_multiplier"][-1]
    for name, frames in (("patch_dim", 1), ("video_patch_dim", before.get("video_temporal_patch_size") or 1)):
        if name in fields:
            fields[name] = 3 * frames * PATCH**2
    if "projector_patch_to_query_dict" in fields:
        fields.update(projector_patch_to_query_dict={GRID**2: 4}, max_value_projector_patch_to_query_dict=4)
    if grids := before.get("image_grid_pinpoints"):
        side = min(min(each) for each in grids)
        fields["image_grid_pinpoints"] = [[x // side * PATCH * GRID for x in each] for each in grids]


def _fit_sections(rope: dict | None, fields: dict) -> None:
    """Share the frequencies, half the rotated part of a head: a factor for each, and sections as large as before."""
    for value in (rope or {}).values():
        if isinstance(value, dict):  # parameters of one kind of layer
            _fit_sections(value, fields)
    if not rope or not ({"mrope_section", "short_factor", "long_factor"} & rope.keys()):
        return
    head = fields.get("head_dim") or fields["hidden_size"] // fields["num_attention_heads"]
    half = int(head * (rope.get("partial_rotary_factor") or fields.get("partial_rotary_factor") or 1)) // 2
    for name in ("short_factor", "long_factor"):
        if name in rope:
            rope[name] = list(rope[name])[:half]
    if sections := rope.get("mrope_section"):
        rope["mrope_section"] = type(sections)(_in_proportion(sections, half))


def _in_proportion(sections: Sequence[int], total: int) -> list[int]:
    """Whole numbers, none of them zero, in about the proportion of others and with another sum."""
    exact = [total * each / sum(sections) for each in sections]
    shares = [max(1, int(each)) for each in exact]
    by_remainder = sorted(range(len(exact)), key=lambda place: int(exact[place]) - exact[place])
    for place in by_remainder[: total - sum(shares)]:  # the largest first, so that equal sections stay equal
        shares[place] += 1
    return shares
