from hypothesis import given
from hypothesis import strategies as st

from vlmpack import Forest, layout


@st.composite
def forests(draw, most: int = 8) -> Forest:
    """Forests of any depth, in pre-order."""
    parents, path = [], []
    for segment in range(draw(st.integers(1, most))):
        path = path[: draw(st.integers(0, len(path)))]
        parents.append(path[-1] if path else -1)
        path.append(segment)
    lengths = draw(st.lists(st.integers(1, 4), min_size=len(parents), max_size=len(parents)))
    return Forest(tuple(parents), tuple(lengths))


def paths(forest: Forest) -> list[list[int]]:
    """For each token, the tokens of its path up to itself: walked naively."""
    walked, ends = [], {}
    for segment, (parent, length) in enumerate(zip(forest.parents, forest.lengths, strict=True)):
        path = list(ends.get(parent, []))
        for _ in range(length):
            path = [*path, len(walked)]
            walked.append(path)
        ends[segment] = path
    return walked


@given(forests())
def test_position_is_the_place_on_the_path_not_in_the_pack(forest):
    assert layout.position(forest).tolist() == [len(path) - 1 for path in paths(forest)]


@given(forests())
def test_previous_is_the_token_before_on_the_path(forest):
    assert layout.previous(forest).tolist() == [path[-2] if len(path) > 1 else -1 for path in paths(forest)]


@given(forests(), st.data())
def test_targets_are_the_tokens_of_the_path_after_the_prompt(forest, data):
    leaves = data.draw(st.lists(st.integers(0, len(forest.lengths) - 1), min_size=1, max_size=4))
    walked = paths(forest)
    ends = [forest.starts[leaf] + forest.lengths[leaf] - 1 for leaf in leaves]
    prompts = [data.draw(st.integers(0, len(walked[end]) - 1)) for end in ends]
    tokens, terms = layout.targets(forest, leaves, prompts)
    naive = [(token, row) for row, end in enumerate(ends) for token in walked[end][prompts[row] :]]
    assert [(tokens[place].item(), row) for place, row in terms.tolist()] == naive
    assert tokens.tolist() == sorted({token for token, _ in naive})  # each once
