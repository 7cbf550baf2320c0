"""The mask of a pack, cut down to one response's path, is the mask that the path has when it stands alone."""

from itertools import compress, groupby

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_layout import paths
from tiny import IMAGE, pairs_among, picture

import vlmpack
from vlmpack import Forest, Sample, plan
from vlmpack.kernels import dense
from vlmpack.kernels import paths as by_paths

WAYS = [None, "image", "prompt"]
FIVE, PICTURES = st.just(5), st.integers(0, 3)
WINDOWS = st.none() | st.integers(1, 7)


@st.composite
def pictured(draw, both_ways, separators=FIVE, images=PICTURES, most: int = 4) -> list[Sample]:
    """Prompts of words and images, also side by side; number 3 has a separator among its tokens. Many begin alike."""
    words = st.lists(st.integers(0, 4), min_size=1, max_size=3)
    made = []
    for _ in range(draw(st.integers(1, most))):
        pieces = draw(st.lists(words | images, min_size=1, max_size=4))
        ids, image_of, shown = [], [], []
        for piece in pieces:
            if isinstance(piece, int):
                layout = [IMAGE] * (piece + 1) if piece < 3 else [IMAGE, IMAGE, draw(separators), IMAGE]
                image_of += [len(shown) if token == IMAGE else -1 for token in layout]
                ids += layout
                shown.append(picture(piece))
            else:
                ids += piece
                image_of += [-1] * len(piece)
        responses = draw(st.lists(words, min_size=2, max_size=4))
        made.append(
            Sample(
                prompt_ids=torch.tensor(ids),
                response_ids=tuple(map(torch.tensor, responses)),
                pairs=tuple(draw(pairs_among(len(responses)))),
                images=tuple(shown),
                image_of=torch.tensor(image_of) if shown else None,
                both_ways=both_ways,
            )
        )
    return made


def stretches(sample: Sample, tokens: int) -> list[int | None]:
    """For each token of prompt and response, the stretch that it sees both ways: an image's run, or the prompt."""
    prompt = len(sample.prompt_ids)
    if sample.both_ways == "prompt":
        return [0] * prompt + [None] * (tokens - prompt)
    if sample.both_ways is None or sample.image_of is None:
        return [None] * tokens
    runs = [list(run) for _, run in groupby(sample.image_of.tolist(), key=lambda image: image >= 0)]
    inside = [number if run[0] >= 0 else None for number, run in enumerate(runs) for _ in run]
    return inside + [None] * (tokens - prompt)


def seen_alone(sample: Sample, tokens: int, window: int | None, window_cuts_blocks: bool) -> list[list[int]]:
    """For each token of prompt and response, the tokens that it sees, as if no other response were there."""
    stretch = stretches(sample, tokens)
    table = []
    for query in range(tokens):
        before = [key <= query for key in range(tokens)]
        beside = [stretch[key] is not None and stretch[key] == stretch[query] for key in range(tokens)]
        near = [window is None or query - key < window for key in range(tokens)]
        if window_cuts_blocks:
            seen = [(b or s) and n for b, s, n in zip(before, beside, near, strict=True)]
        else:
            seen = [(b and n) or s for b, s, n in zip(before, beside, near, strict=True)]
        table.append([key for key in range(tokens) if seen[key]])
    return table


def planned(made: list[Sample], backend: str, window_cuts_blocks: bool = False):
    """The samples in one pack, its plan, and for each response its sample and the tokens of its path."""
    (pack,) = vlmpack.pack(made)
    blocks = pack.blocks[0] if made[0].both_ways else None
    known = plan.make(
        pack.forest, pack.reach[0], pack.position_ids[0], backend, blocks, window_cuts_blocks=window_cuts_blocks
    )
    walked = paths(pack.forest)
    own = [(made[row], walked[end]) for row, end in zip(pack.sample_of.tolist(), pack.ends.tolist(), strict=True)]
    return pack, known, own


def check_dense(made: list[Sample], window: int | None, cuts: bool) -> None:
    _, known, responses = planned(made, "dense", cuts)
    masks, rows = dense.mask(known, window)[:, 0].tolist(), dense.rows(known)[0].tolist()
    for sample, path in responses:
        expected = [[path[key] for key in seen] for seen in seen_alone(sample, len(path), window, cuts)]
        holding = [(row, mask) for row, mask in zip(rows, masks, strict=True) if path[-1] in row]
        assert holding
        for row, mask in holding:  # and nothing else in the row is seen
            assert [list(compress(row, mask[row.index(query)])) for query in path] == expected


def check_runs(made: list[Sample], window: int | None, cuts: bool) -> None:
    _, known, responses = planned(made, "paths", cuts)
    spans = [range(start, start + n) for start, n in zip(known.forest.starts, known.forest.lengths, strict=True)]
    alone = [seen_alone(sample, len(path), window, cuts) for sample, path in responses]
    for run, call in zip(known.runs, by_paths.calls(known, window, torch.float32), strict=True):
        keys = [token for segment in call.keys for token in spans[segment]]
        queries = [token for segment in call.queries for token in spans[segment]]
        mask = torch.ones(len(keys), len(keys)).tril() if call.mask is None else call.mask == 0
        own, mask = {token for segment in run.own for token in spans[segment]}, mask.tolist()
        assert queries[-call.own :] == sorted(own)
        for (_, path), expected in zip(responses, alone, strict=True):
            for query in own.intersection(path):  # what is computed for the context is dropped
                seen = list(compress(keys, mask[queries.index(query)]))
                assert seen == [path[key] for key in expected[path.index(query)]]


@pytest.mark.parametrize("check", [check_dense, check_runs])
@pytest.mark.parametrize("both_ways", WAYS)
@settings(deadline=None, max_examples=20, derandomize=True)
@given(data=st.data(), window=WINDOWS, cuts=st.booleans())
def test_the_mask_of_a_path_is_that_of_the_path_alone(both_ways, check, data, window, cuts):
    check(data.draw(pictured(both_ways, separators=st.integers(5, 6))), window, cuts)


@pytest.mark.slow
@pytest.mark.parametrize("check", [check_dense, check_runs])
@pytest.mark.parametrize("both_ways", WAYS)
@settings(deadline=None, max_examples=500)
@given(data=st.data(), window=WINDOWS, cuts=st.booleans())
def test_the_masks_of_many_paths_are_those_of_the_paths_alone(both_ways, check, data, window, cuts):
    check(data.draw(pictured(both_ways, separators=st.integers(5, 6), most=6)), window, cuts)


def test_a_run_with_a_stretch_seen_both_ways_is_not_plain_and_one_after_it_may_be():
    forest = Forest((-1, 0, 0), (3, 40, 40))
    token, blocks = torch.arange(83), torch.tensor([0, 0, 0, *[-1] * 80])
    reach, position = torch.tensor([83] * 3 + [43] * 40 + [83] * 40), torch.cat([token[:43], token[3:43]])
    known = plan.make(forest, reach, position, "paths", blocks)
    first, second = by_paths.calls(known, None, torch.float32)
    assert (first.mask[0] == 0).nonzero()[:, 0].tolist() == [0, 1, 2]
    assert (first.mask[3] == 0).nonzero()[:, 0].tolist() == [0, 1, 2, 3]
    assert (second.queries, second.mask) == ((0, 2), None)
    assert by_paths.calls(known, 43, torch.float32)[1].mask is None  # the whole path lies within the window
    assert by_paths.calls(known, 42, torch.float32)[1].mask.shape == (40, 43)


def test_layers_with_and_without_a_window_have_masks_of_their_own():
    (pack,) = vlmpack.pack([Sample(torch.tensor([1, 2, 3]), (torch.tensor([4]),))])
    for backend in ("dense", "paths"):
        known = plan.make(pack.forest, pack.reach[0], pack.position_ids[0], backend)
        assert [dense.mask(known, window).sum().item() for window in (None, 2, None, 1)] == [10, 7, 10, 4]
