"""What packing saves, predicted from lengths alone: tokens, vision passes and FLOPs."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from vlmpack.sample import Lengths


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
        lengths: of every sample.
        cost: of the model, from `cost_of`.
    """
    lengths = list(lengths)
    packed = sum(packed_flops(each, cost) for each in lengths)
    unpacked = sum(unpacked_flops(each, cost) for each in lengths)
    seen = {image for each in lengths for image in each.images}
    passes = sum(len(set(each.images)) for each in lengths)
    return Saving(
        prompts=len(lengths),
        responses=sum(len(each.responses) for each in lengths),
        pairs=sum(len(each.pairs) for each in lengths),
        tokens=(sum(each.unpacked for each in lengths), sum(each.packed for each in lengths)),
        passes=(
            sum(len(each.images) * len(each.responses) for each in lengths),
            passes,
        ),
        flops=(unpacked, packed),
        again=passes - len(seen),
        blind=bool(seen) and cost.image is None,
    )


def packed_flops(lengths: Lengths, cost: Cost) -> float:
    """Forward FLOPs of one sample with its prompt once: each token meets the keys of its own path only."""

    def after_prompt(tokens: int) -> int:
        return tokens * lengths.prompt + _causal(tokens)

    pairs = sum(map(after_prompt, lengths.responses)) - sum(map(after_prompt, lengths.overlaps))
    pairs += _causal(lengths.prompt)
    predictions = sum(lengths.responses) - sum(lengths.overlaps)
    images = len(set(lengths.images)) * (cost.image or 0.0)
    return lengths.packed * cost.token + pairs * cost.pair + predictions * cost.prediction + images


def unpacked_flops(lengths: Lengths, cost: Cost) -> float:
    """Forward FLOPs of one sample with every response on its own."""
    pairs = sum(_causal(lengths.prompt + r) for r in lengths.responses)
    images = len(lengths.responses) * len(lengths.images) * (cost.image or 0.0)
    return lengths.unpacked * cost.token + pairs * cost.pair + sum(lengths.responses) * cost.prediction + images


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


def _causal(tokens: int) -> int:
    """Query-key pairs of plain causal attention."""
    return tokens * (tokens + 1) // 2


def _change(amounts: tuple[float, float], form: str) -> str:
    before, after = amounts
    return f"{form.format(before)} → {form.format(after)} ({before / max(after, 1):.2f}x)"
