"""Fewer layers, two of every kind that there was."""

import re
from itertools import pairwise

from transformers import PretrainedConfig

COUNTS = re.compile(
    r"(conf_)?num_(hidden_)?layers|n_layers?|depth|layers|(de|en)coder_layers|num_blocks|num_layers_per_stack"
    r"|resampler_depth|aligner_num_add_layers"
)
FIRST = re.compile(r"first_k_dense_replace|num_dense_layers|max_window_layers|num_hash_layers|num_global_layers")
LAST = re.compile(r"num_kv_shared_layers")
INDEXES = re.compile(r"\w*(indexes|indices|_ids|idxs|_layers)")
PERIODS = {  # kinds that alternate without a list that says so
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    "expert_layer_period": 2,
    "expert_layer_offset": 1,
    "moe_layer_freq": 1,
    "decoder_sparse_step": 1,
    "layer_group_size": 2,
    "no_rope_layer_interval": 2,
    "cross_attention_frequency": 1,
    "cross_layer_interval": 1,
    "insert_layer_id": 0,
}


def keep_two_of_each_kind(config: PretrainedConfig, least: int = 2) -> None:
    """Leave few layers, and two of every kind that the lists of the configuration tell apart.

    Args:
        config: changed in place: the number of layers, lists with an entry for each layer, lists of layers' indexes,
            and numbers of first or last layers.
        least: how many layers stay, though of one kind.
    """
    fields = config.__dict__
    for count in [name for name in fields if COUNTS.fullmatch(name) and isinstance(fields[name], int)]:
        total = fields[count]
        kept = _kept(fields, total, least)
        for name, value in list(fields.items()):
            fields[name] = _of_kept(name, value, kept, total)
        fields[count] = len(kept)
    for name in PERIODS.keys() & fields.keys():
        if fields[name] is not None:
            fields[name] = PERIODS[name]


def _kept(fields: dict, total: int, least: int) -> list[int]:
    """Indexes of the layers that stay: the first two of each kind, and as many as asked for or a period needs.

    Two, for what tokens of the prompt see in the very last layer reaches no response.
    """
    kinds: dict[tuple, list[int]] = {}
    for layer in range(total):
        kinds.setdefault(_kind(fields, layer, total), []).append(layer)
    kept = {layer for layers in kinds.values() for layer in layers[:2]}
    if any(fields.get(name) not in (None, PERIODS[name]) for name in PERIODS if "period" in name):
        least = 4
    for layer in range(total):
        if len(kept) < min(least, total):
            kept.add(layer)
    return sorted(kept)


def _kind(fields: dict, layer: int, total: int) -> tuple:
    kind = []
    for name, value in fields.items():
        if _is_indexes(name, value, total):
            kind.append(min(value.index(layer), 1) if layer in value else None)
        elif _is_per_layer(name, value, total):
            shared = value[layer] == "hybrid" and "hybrid" in value[:layer]  # later ones take the first's weights
            kind.append((repr(value[layer]), shared))
        elif isinstance(value, int) and FIRST.fullmatch(name):
            kind.append(layer < value)
        elif isinstance(value, int) and LAST.fullmatch(name):
            kind.append(layer >= total - value)
        elif name == "_heterogeneity_spec":
            kind.append(repr(value.per_layer_overrides.get(layer)))
    return tuple(kind)


def _of_kept(name: str, value, kept: list[int], total: int):
    """What a field says, said of the layers that stay."""
    if _is_indexes(name, value, total):
        return type(value)(kept.index(each) for each in value if each in kept)
    if _is_per_layer(name, value, total):
        return type(value)(value[layer] for layer in kept)
    if isinstance(value, int) and not isinstance(value, bool) and FIRST.fullmatch(name):
        return sum(layer < value for layer in kept)
    if isinstance(value, int) and LAST.fullmatch(name):
        return sum(layer >= total - value for layer in kept)
    if name == "_heterogeneity_spec":
        own = value.per_layer_overrides
        value.per_layer_overrides = {place: own[layer] for place, layer in enumerate(kept) if layer in own}
    return value


def _is_indexes(name: str, value, total: int) -> bool:
    if not INDEXES.fullmatch(name) or not isinstance(value, list | tuple) or not value:
        return False
    numbers = all(type(each) is int and 0 <= each < total for each in value)
    return numbers and all(a < b for a, b in pairwise(value))


def _is_per_layer(name: str, value, total: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == total > 2 and not name.startswith("_")
