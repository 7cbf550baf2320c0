import pytest
import torch
from hypothesis import given
from test_layout import forests, paths
from torch.nn.functional import scaled_dot_product_attention as attend

from vlmpack.forest import Forest
from vlmpack.layout import position
from vlmpack.masks import dense, path_causal, reach, seen

PACKS = {
    "one response": (Forest((-1, 0), (4, 3)), {1: [0, 1]}),
    "three responses": (Forest((-1, 0, 0, 0), (5, 1, 4, 2)), {1: [0, 1], 2: [0, 2], 3: [0, 3]}),
    "two prompts": (Forest((-1, 0, 0, -1, 3), (3, 2, 1, 1, 6)), {1: [0, 1], 2: [0, 2], 4: [3, 4]}),
    "shared image": (Forest((-1, 0, 1, 0, 3), (6, 2, 3, 1, 4)), {2: [0, 1, 2], 4: [0, 3, 4]}),
}


@pytest.mark.parametrize(("forest", "leaves"), PACKS.values(), ids=PACKS)
def test_sharing_a_prefix_changes_neither_outputs_nor_gradients(forest, leaves):
    qkv = torch.randn(3, 1, 2, sum(forest.lengths), 8, dtype=torch.float64, requires_grad=True)
    spans = [torch.arange(a, a + n) for a, n in zip(forest.starts, forest.lengths, strict=True)]

    packed = attend(*qkv, attn_mask=dense(reach(forest)))
    packed_responses = [packed[..., spans[leaf], :] for leaf in leaves]
    alone_responses = []
    for leaf, path in leaves.items():
        alone = attend(*qkv[..., torch.cat([spans[s] for s in path]), :], is_causal=True)
        alone_responses.append(alone[..., -forest.lengths[leaf] :, :])

    torch.testing.assert_close(packed_responses, alone_responses)
    (packed_gradient,) = torch.autograd.grad(sum(r.square().sum() for r in packed_responses), qkv)
    (alone_gradient,) = torch.autograd.grad(sum(r.square().sum() for r in alone_responses), qkv)
    torch.testing.assert_close(packed_gradient, alone_gradient)


@given(forests())
def test_a_token_sees_its_own_path_and_nothing_else(forest):
    table = dense(reach(forest))
    assert [row.nonzero()[:, 0].tolist() for row in table] == paths(forest)


def test_padding_sees_and_is_seen_by_itself_alone():
    padded = torch.cat([reach(Forest((-1, 0), (2, 1))), torch.tensor([4, 5])])
    assert dense(padded)[3:].nonzero().tolist() == [[0, 3], [1, 4]]
    assert path_causal(padded)(0, 0, torch.tensor(4), torch.tensor(3)).item() is False


def test_a_window_is_measured_in_positions():
    """Three tokens of a prompt and two responses of two: the second response's first token is next to the prompt."""
    forest = Forest((-1, 0, 0), (3, 2, 2))
    token = torch.arange(7)
    near = seen(reach(forest), position(forest), window=2)(0, 0, token[:, None], token[None, :])
    assert [row.nonzero()[:, 0].tolist() for row in near] == [[0], [0, 1], [1, 2], [2, 3], [3, 4], [2, 5], [5, 6]]


@pytest.mark.parametrize(("cuts", "first"), [(False, [0, 1, 2, 3]), (True, [0, 1, 2, 3])])
def test_a_stretch_sees_itself_both_ways_and_what_follows_sees_it_causally(cuts, first):
    forest = Forest((-1, 0, 0), (4, 1, 1))
    token, blocks = torch.arange(6), torch.tensor([0, 0, 0, 0, -1, -1])
    mask = seen(reach(forest), position(forest), 2, blocks, cuts)(0, 0, token[:, None], token[None, :])
    rows = [row.nonzero()[:, 0].tolist() for row in mask]
    last = [2, 3] if cuts else [0, 1, 2, 3]  # the window looks back two tokens, or not at all inside a stretch
    assert (rows[0], rows[3], rows[4], rows[5]) == (first, last, [3, 4], [3, 5])
