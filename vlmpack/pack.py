"""Several samples in one sequence, with everything a model and a loss need to read it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vlmpack import layout, masks
from vlmpack.forest import Forest
from vlmpack.image_counts import joined, running
from vlmpack.prefix import Merged, merge
from vlmpack.reading import Reading
from vlmpack.sample import Sample, SampleError
from vlmpack.shown import Shown, enumerated


@dataclass(frozen=True, eq=False, repr=False)
class Pack(Shown):
    """Samples laid out as one forest: what several have in common stands once, and the rest follows it.

    Token arrays are [1, T]; responses run over the samples' order, sample by sample.

    Attributes:
        forest: images, prompts and responses as segments; what is shared, at any depth, stands once.
        input_ids: [1, T] token ids.
        position_ids: [1, T] distance along the path; every response restarts after its prompt. What a model makes
            of it, M-RoPE's three rows for one, is in `vlmpack.positions`.
        reach: [1, T] one past the last token that may see each token.
        previous: [1, T] index of the token before each one on its path; -1 at a root's start.
        ends: [R] index of each response's last token, which other responses may continue or share.
        pairs: [P, 2] (preferred, rejected) rows of the R responses.
        margins: [P] how much better the preferred one is; None unless every sample knows.
        sample_of: [R] each response's row in the list given to `vlmpack.pack`.
        targets: [N] indices of the tokens that are predicted, each once: all tokens after a prompt.
        terms: [M, 2] what each response's log-probability sums: (row of `targets`, response).
        images: the model's arguments for the images that run through the tower, once each.
        contents: a digest of each of them, in the order in which they run; equal for equal images only.
        pixel_shapes: the shape of each one's own `pixel_values`, not filled up to others; empty if it has none.
        placements: [I] for each place of an image, in token order, the number of the image that stands there.
        image_of: [1, T] for each token, the place of an image whose features it receives; -1 for text.
        blocks: [1, T] for tokens that see their neighbours both ways, the number of their stretch; -1 for others.
        both_ways: the samples' own; the model must be of a family that sees so.
        padding: how many of the tokens count for nothing; see `vlmpack.padding`.
        reading: how tokens and pixels are read back; None if the samples do not know, or not the same.
    """

    forest: Forest
    input_ids: Int[Tensor, "1 T"]
    position_ids: Int[Tensor, "1 T"]
    reach: Int[Tensor, "1 T"]
    previous: Int[Tensor, "1 T"]
    ends: Int[Tensor, " R"]
    pairs: Int[Tensor, "P 2"]
    margins: Float[Tensor, " P"] | None
    sample_of: Int[Tensor, " R"]
    targets: Int[Tensor, " N"]
    terms: Int[Tensor, "M 2"]
    images: dict[str, Tensor]
    placements: tuple[int, ...]
    image_of: Int[Tensor, "1 T"]
    blocks: Int[Tensor, "1 T"]
    both_ways: str | None = None
    padding: int = 0
    contents: tuple[bytes, ...] = ()
    pixel_shapes: tuple[tuple[int, ...], ...] = ()
    reading: Reading | None = None

    def __repr__(self) -> str:
        prompts = len(set(self.sample_of.tolist()))
        counts = {"prompt": prompts, "response": self.responses, "token": self.tokens, "image": self.vision_passes}
        return f"<Pack of {enumerated({**counts, 'pair': len(self.pairs)})}>"

    @property
    def responses(self) -> int:
        """R, the responses in the pack."""
        return len(self.ends)

    @property
    def response_lengths(self) -> Int[Tensor, " R"]:
        """Tokens of each response."""
        return torch.zeros_like(self.ends).index_add(0, self.terms[:, 1], torch.ones_like(self.terms[:, 1]))

    @property
    def vision_passes(self) -> int:
        """Images that run through the vision tower, once each; how often the same one does, `sharing` decides."""
        return len(set(self.placements))

    @property
    def tokens(self) -> int:
        """T, the tokens in the pack."""
        return self.forest.tokens

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> "Pack":
        """The pack with every tensor on the device.

        Args:
            device: as for `Tensor.to`.
            non_blocking: likewise; for packs in page-locked memory.
        """
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Pack":
        """The pack in page-locked memory, for fast copies to a GPU. DataLoader calls this."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change) -> "Pack":
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {name: change(value) for name, value in tensors.items() if isinstance(value, Tensor)}
        return replace(self, **moved, images={name: change(value) for name, value in self.images.items()})


def lay_out(samples: Sequence[Sample], rows: Sequence[int], merged: Merged | None = None) -> Pack:
    """Lay samples out as one pack.

    Args:
        samples: in the order in which they shall stand.
        rows: each sample's row in the caller's list, for `sample_of`.
        merged: the samples as a forest; None for `prefix.merge(samples)`.
    """
    merged = merged or merge(samples)
    forest = merged.forest
    leaves = [leaf for each in merged.leaves for leaf in each]
    prompts = [len(sample.prompt_ids) for sample in samples for _ in sample.response_ids]
    targets, terms = layout.targets(forest, leaves, prompts)
    images, placements = joined(merged.images, merged.placements)
    run = [merged.images[number] for number in running(merged.images)]
    return Pack(
        forest=forest,
        input_ids=torch.from_numpy(merged.input_ids)[None],
        position_ids=layout.position(forest)[None],
        reach=masks.reach(forest)[None],
        previous=layout.previous(forest)[None],
        ends=torch.tensor([forest.starts[leaf] + forest.lengths[leaf] - 1 for leaf in leaves]),
        pairs=_pairs(samples),
        margins=_margins(samples),
        sample_of=torch.tensor([row for row, s in zip(rows, samples, strict=True) for _ in s.response_ids]),
        targets=targets,
        terms=terms,
        images=images,
        placements=placements,
        image_of=torch.from_numpy(merged.image_of)[None],
        blocks=torch.from_numpy(merged.blocks)[None],
        both_ways=_both_ways(samples),
        padding=merged.padding,
        contents=tuple(image.content for image in run),
        pixel_shapes=tuple(tuple(getattr(image.tensors.get("pixel_values"), "shape", ())) for image in run),
        reading=_reading(samples),
    )


def _reading(samples: Sequence[Sample]) -> Reading | None:
    first = samples[0].reading
    return first if all(sample.reading is first for sample in samples) else None


def _both_ways(samples: Sequence[Sample]) -> str | None:
    ways = {sample.both_ways for sample in samples}
    if len(ways) > 1:
        raise SampleError(
            f"samples with both_ways of {sorted(map(str, ways))} are of different families; pack each alone"
        )
    return ways.pop()


def _pairs(samples: Sequence[Sample]) -> Int[Tensor, "P 2"]:
    pairs: list[tuple[int, int]] = []
    first = 0  # the sample's first response among the pack's
    for sample in samples:
        pairs += [(first + preferred, first + rejected) for preferred, rejected in sample.pairs]
        first += len(sample.response_ids)
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)


def _margins(samples: Sequence[Sample]) -> Float[Tensor, " P"] | None:
    if any(sample.margins is None for sample in samples):
        return None
    return torch.tensor([margin for sample in samples for margin in sample.margins])
