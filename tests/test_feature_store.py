"""What is kept of images stays within its limit, and an epoch finds again what there was room for."""

import pickle
from copy import deepcopy

import torch

from vlmpack.feature_store import FeatureStore

ONE = torch.ones(2)  # 8 bytes


def asked(store: FeatureStore, *images: int) -> list[int]:
    """The images that were not known, and are kept now as far as there is room."""
    new = [image for image in images if store.get(image, "layer") is None]
    store.keep("layer", dict.fromkeys(new, ONE), images)
    return new


def test_with_room_for_half_of_the_images_every_later_epoch_finds_half():
    store = FeatureStore(limit=4 * 8)
    assert [asked(store, image) for image in range(8)] == [[image] for image in range(8)]
    for _ in range(3):  # 0, 1 and 2 stay; the place of the fourth is handed on
        assert sum(len(asked(store, image)) for image in range(8)) == 5
        assert asked(store, 0, 1, 2) == []


def test_a_second_model_finds_what_the_first_one_has_just_made():
    """As a reference after its policy, on packs of two, however full the store is."""
    store = FeatureStore(limit=3 * 8 + 7)
    for images in ((0, 1), (2, 3), (4, 5), (6, 7)):
        assert asked(store, *images) == list(images)
        assert asked(store, *images) == []
        assert store.bytes <= store.limit


def test_a_piece_is_a_copy_of_its_own_and_all_parts_of_an_image_go_together():
    store, whole = FeatureStore(limit=40), torch.arange(6.0)
    store.keep("first", dict(enumerate(whole.split(2))), (0, 1, 2))
    store.keep("second", {2: ONE}, (2,))
    whole.zero_()
    assert store.get(1, "first").tolist() == [2, 3]
    assert store.get(1, "first").untyped_storage().nbytes() == 8
    assert (len(store), store.bytes) == (3, 32)
    store.keep("first", {3: torch.ones(4)}, (3,))
    assert (store.get(2, "first"), store.get(2, "second"), store.bytes) == (None, None, 32)


def test_what_is_larger_than_the_limit_or_beside_images_in_use_is_not_kept():
    store = FeatureStore(limit=8)
    store.keep("layer", {0: torch.ones(3)}, (0,))
    assert (len(store), store.bytes) == (0, 0)
    assert asked(store, 0, 1) == [0, 1]
    assert (store.get(0, "layer") is None, store.get(1, "layer") is None) == (False, True)


def test_a_pickled_one_knows_no_image_and_has_the_same_limit():
    store = FeatureStore(limit=8)
    asked(store, 0)
    back = pickle.loads(pickle.dumps(store))
    assert (len(back), back.bytes, back.limit) == (0, 0, 8)
    assert (len(store), asked(back, 0)) == (1, [0])


def test_a_copy_is_the_same_store():
    store = FeatureStore(limit=8)
    assert deepcopy({"tower": store})["tower"] is store
    asked(store, 0)
    store.clear()
    assert (len(store), store.bytes, asked(store, 0)) == (0, 0, [0])
