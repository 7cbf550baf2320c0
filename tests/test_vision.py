"""Each distinct image's features stand wherever its tokens do, in the form in which the model gave them."""

from types import SimpleNamespace

import pytest
import torch
from tiny import llama, llava, picture
from torch import nn

import vlmpack
from vlmpack import ImageInputs, Sample
from vlmpack.image_counts import COUNTS
from vlmpack.vision import feature_maker, placed

# Images 0, 1 and 2 have 2, 2 and 3 tokens; a feature is ten times its image plus its place in it.
FEATURES = [torch.tensor([[0.0], [1.0]]), torch.tensor([[10.0], [11.0]]), torch.tensor([[20.0], [21.0], [22.0]])]


class Tower(nn.Module):
    """Gives the features it is told to give."""

    def __init__(self, **features) -> None:
        super().__init__()
        self.features = features

    def get_encoder(self, _):
        return None

    def get_image_features(self, **_):
        return SimpleNamespace(**self.features)


def shown(images: list[list[int]], counts: dict[int, int] | None = None):
    """A pack of prompts that show images by number, a word between two; 0 and 1 have two tokens, 2 has three."""
    made = []
    for row, numbers in enumerate(images):
        ids, image_of, pictures = [row + 1], [-1], []
        for place, number in enumerate(numbers):
            tokens = 3 if number == 2 else 2
            ids += [22] * tokens + [5]
            image_of += [place] * tokens + [-1]
            extra = {COUNTS: torch.tensor([counts[number]])} if counts else {}
            pictures.append(ImageInputs({**picture(number).tensors, **extra}))
        made.append(
            Sample(torch.tensor(ids), (torch.tensor([3]),), images=tuple(pictures), image_of=torch.tensor(image_of))
        )
    return vlmpack.pack(made)[0]


def features_in(pack, **features):
    tower = Tower(**features)
    with placed(tower, pack):
        found = tower.get_image_features()
    assert "get_image_features" not in vars(tower)  # the class's own again
    return found


def test_features_given_as_a_list_become_one_of_all_image_tokens():
    found = features_in(shown([[2, 0], [0, 1, 2]]), pooler_output=[FEATURES[2], FEATURES[0], FEATURES[1]])
    (gathered,) = found.pooler_output
    assert gathered[:, 0].tolist() == [20, 21, 22, 0, 1, 0, 1, 10, 11, 20, 21, 22]


def test_features_given_as_one_row_stay_one():
    flat = torch.cat(FEATURES)
    found = features_in(shown([[0, 1, 2], [1]]), pooler_output=flat).pooler_output
    assert found[:, 0].tolist() == [0, 1, 10, 11, 20, 21, 22, 10, 11]
    found = features_in(shown([[0, 1, 2], [1]]), pooler_output=flat[None]).pooler_output
    assert found.shape == (1, 9, 1)


def test_features_given_by_image_stay_by_image():
    found = features_in(shown([[0, 1], [1], [0]]), pooler_output=torch.stack(FEATURES[:2])).pooler_output
    assert found[..., 0].tolist() == [[0, 1], [10, 11], [10, 11], [0, 1]]


def test_features_for_several_layers_are_placed_alike():
    flat = torch.cat(FEATURES)
    layers = [flat + 100, flat + 200]
    found = features_in(shown([[0, 1, 2], [1]]), pooler_output=[flat], deepstack_features=layers)
    assert [layer[:, 0].tolist() for layer in found.deepstack_features] == [
        [100, 101, 110, 111, 120, 121, 122, 110, 111],
        [200, 201, 210, 211, 220, 221, 222, 210, 211],
    ]


def test_gradients_of_an_image_that_stands_several_times_are_summed():
    flat = torch.cat(FEATURES).requires_grad_()
    features_in(shown([[0, 1, 2], [1], [1, 0]]), pooler_output=flat).pooler_output.sum().backward()
    assert flat.grad[:, 0].tolist() == [2, 2, 3, 3, 1, 1, 1]


def test_images_told_in_another_order_and_a_spare_one_are_found():
    """Image 1 stands alone and is told first; image 0, twice in one prompt, is told twice so that it is not cut."""
    pack = shown([[0, 0], [1]], counts={0: 2, 1: 1})
    assert (pack.images[COUNTS].tolist(), pack.placements) == ([1, 2], (1, 1, 0))
    found = features_in(pack, pooler_output=[FEATURES[1], FEATURES[0], FEATURES[0]]).pooler_output
    assert found[0][:, 0].tolist() == [0, 1, 0, 1, 10, 11]


def test_images_in_order_are_left_to_the_model():
    given = [FEATURES[0], FEATURES[2]]
    assert features_in(shown([[0, 2]]), pooler_output=given).pooler_output is given


def test_the_models_own_features_come_back_after_an_error():
    tower = Tower(pooler_output=[FEATURES[0]])
    with pytest.raises(ZeroDivisionError), placed(tower, shown([[0], [0]])):
        _ = 1 / 0
    assert "get_image_features" not in vars(tower)


def test_the_innermost_module_makes_features_and_text_models_have_none():
    model = llava()
    assert feature_maker(model) is model.model
    assert feature_maker(llama()) is None
