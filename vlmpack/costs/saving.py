"""What packing saves, predicted from lengths alone: tokens, vision passes and FLOPs."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int
from torch import nn

from vlmpack.lengths import Lengths, LengthTable
from vlmpack.ragged import Ragged


@dataclass(frozen=True)
class Cost:
    """Forward floating-point operations of a model's parts; a multiply and an add are two.

    Attributes:
        token: of one token through the decoder's matrices.
        pair: of one query-key pair, all layers and heads.
        prediction: of one position through the language-model head; 0 for a reward model.
        image: of one picture of the vision tower's own size through tower and projector; an image that is cut into
            tiles takes several. None: the tower takes pictures of any size, so that it cannot be foretold.
    """

    token: float
    pair: float
    prediction: float = 0.0
    image: float | None = 0.0


@dataclass(frozen=True)
class Saving:
    """One data set both ways, forward passes only (backward is about twice as much, both ways).

    Attributes:
        prompts, responses, pairs: counts.
        tokens: (unpacked, packed).
        passes: images through the vision tower, (unpacked, packed).
        flops: (unpacked, packed).
        again: packed vision passes that show an image of an earlier row. Rows that meet in a batch share them, and
            the tokens that begin their prompts alike, which is not counted here.
        blind: whether `flops` leave the vision tower out.
    """

    prompts: int
    responses: int
    pairs: int
    tokens: tuple[int, int]
    passes: tuple[int, int]
    flops: tuple[float, float]
    again: int = 0
    blind: bool = False

    def __str__(self) -> str:
        vision = f"vision passes {_change(self.passes, '{:,}')}, " if self.passes[0] else ""
        return (
            f"packing {self.prompts:,} prompts with {self.responses:,} responses ({self.pairs:,} pairs): "
            f"tokens {_change(self.tokens, '{:,}')}, {vision}"
            f"predicted FLOPs{' without vision' if self.blind else ''} {_change(self.flops, '{:.2e}')}{self._more()}"
        )

    def _more(self) -> str:
        if not self.again:
            return ""
        return f"; {self.again:,} of the vision passes show an image again, which rows of one batch share"


def saving(lengths: Iterable[Lengths], cost: Cost) -> Saving:
    """Compare packed with unpacked over a data set.

    Args:
        lengths: of every sample; a `LengthTable` if they are many.
        cost: of the model, from `cost_of`.
    """
    table = lengths if isinstance(lengths, LengthTable) else LengthTable.of(lengths)
    passes, seen = int(table.vision_passes.sum()), len(np.unique(table.images.values))
    return Saving(
        prompts=len(table),
        responses=len(table.responses.values),
        pairs=len(table.pairs.values),
        tokens=(int(table.unpacked.sum()), int(table.packed.sum())),
        passes=(int((table.images.counts * table.responses_of_row).sum()), passes),
        flops=(float(unpacked_flops(table, cost).sum()), float(packed_flops(table, cost).sum())),
        again=passes - seen,
        blind=bool(seen) and cost.image is None,
    )


def packed_flops(table: LengthTable, cost: Cost) -> Float64[np.ndarray, " n"]:
    """Forward FLOPs of each sample with its prompt once: each token meets the keys of its own path only."""
    prompt = table.prompt.astype(np.int64)
    pairs = _causal(prompt) + _after_prompt(table, table.responses) - _after_prompt(table, table.overlaps)
    images = table.vision_passes * (cost.image or 0.0)
    predictions = table.responses.sums - table.overlaps.sums
    return table.packed * float(cost.token) + pairs * float(cost.pair) + predictions * cost.prediction + images


def unpacked_flops(table: LengthTable, cost: Cost) -> Float64[np.ndarray, " n"]:
    """Forward FLOPs of each sample with every response on its own."""
    responses = table.responses_of_row
    pairs = responses * _causal(table.prompt.astype(np.int64)) + _after_prompt(table, table.responses)
    images = responses * table.images.counts * (cost.image or 0.0)
    return (
        table.unpacked * float(cost.token) + pairs * float(cost.pair) + table.responses.sums * cost.prediction + images
    )


def shared_flops(table: LengthTable, cost: Cost) -> Float64[np.ndarray, " n"]:
    """Forward FLOPs of what each sample shares with others of its root when they meet: trunk and images."""
    trunk = table.trunk.astype(np.int64)
    images = np.where(table.roots >= 0, table.vision_passes, 0) * (cost.image or 0.0)
    return trunk * float(cost.token) + _causal(trunk) * float(cost.pair) + images


def _after_prompt(table: LengthTable, column: Ragged) -> Int[np.ndarray, " n"]:
    """Query-key pairs of each sample's stretches of tokens that follow its prompt."""
    tokens = column.values.astype(np.int64)
    return table.prompt * column.sums + Ragged(_causal(tokens), column.starts).sums


def cost_of(model: nn.Module) -> Cost:
    """A model's cost by its parameters and configuration; a mixture of experts counts all its experts.

    Args:
        model: a transformers model or a `RewardModel`, not wrapped.
    """
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    config = decoder.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Cost(
        token=2.0 * _matrix_elements(decoder),
        pair=4.0 * config.num_hidden_layers * config.num_attention_heads * head_dim,
        prediction=2.0 * head.weight.numel() if head is not None else 0.0,
        image=_image_cost(model),
    )


def _image_cost(model: nn.Module) -> float | None:
    tower = model.get_encoder("image")
    if tower in (model, model.base_model, model.get_decoder()):
        return 0.0  # no tower: transformers answers with the model itself
    vision = tower.config
    sizes = [getattr(vision, name, None) for name in ("image_size", "patch_size", "num_hidden_layers", "hidden_size")]
    if not all(isinstance(size, int) for size in sizes):
        return None
    patches = (vision.image_size // vision.patch_size) ** 2
    tokens = patches + 1  # the class token, which no patch convolution makes
    attention = 4.0 * vision.num_hidden_layers * vision.hidden_size * tokens**2
    convolution = sum(each.weight.numel() for each in tower.modules() if isinstance(each, nn.Conv2d))
    body = 2.0 * tokens * (_matrix_elements(tower) - convolution) + 2.0 * patches * convolution
    projector = getattr(model.base_model, "multi_modal_projector", None) or getattr(
        getattr(model.base_model, "model", None), "multi_modal_projector", None
    )
    return attention + body + (2.0 * patches * _matrix_elements(projector) if projector is not None else 0.0)


def _matrix_elements(module: nn.Module) -> int:
    """Weights that every token is multiplied with: not those that are only looked up."""
    multiplying = (each for each in module.modules() if not isinstance(each, nn.Embedding))
    weights = (parameter for each in multiplying for parameter in each.parameters(recurse=False))
    return sum(weight.numel() for weight in weights if weight.ndim >= 2)


def _causal(tokens: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Query-key pairs of plain causal attention."""
    return tokens * (tokens + 1) // 2


def _change(amounts: tuple[float, float], form: str) -> str:
    before, after = amounts
    return f"{form.format(before)} → {form.format(after)} ({before / max(after, 1):.2f}x)"
