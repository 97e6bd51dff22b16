from __future__ import annotations

import numpy as np
import pytest
import torch

from metarl.errors import UserError
from metarl.fewshot.classes import ClassData
from metarl.fewshot.data import Collection, from_arrays
from metarl.fewshot.episodes import EpisodeShape, MetaDatasetShape, Source

pytestmark = pytest.mark.usefixtures("cache_root")


def tinted(name: str, value: float, shape: tuple[int, ...], splits: tuple[str, ...]) -> ClassData:
    data = from_arrays(np.full((80, *shape), value, np.float32), np.arange(80) // 8, name=name)
    # Mean and deviation left aside: an item shows whose it is.
    return ClassData(name=name, splits={split: data.splits[split] for split in splits})


@pytest.fixture
def collection() -> Collection:
    everywhere = ("train", "validation", "test")
    return Collection(
        members=(
            tinted("grey", 1.0, (1, 8, 8), everywhere),
            tinted("colour", 2.0, (3, 16, 16), everywhere),
            tinted("test-only", 3.0, (1, 8, 8), ("test",)),
        )
    )


def test_collection_draws_from_all_members(collection: Collection) -> None:
    shape = EpisodeShape(way=1, shot=1, query=2)
    assert isinstance(collection, Source)
    assert (collection.name, collection.item_shape) == ("grey+colour+test-only", (3, 8, 8))
    for split, values in {"train": {1.0, 2.0}, "test": {1.0, 2.0, 3.0}}.items():
        episodes = collection.episodes(split, range(60), shape, seed=0)
        assert episodes.support.x.shape == (60, 1, 3, 8, 8)
        found = episodes.support.x.amax((1, 2, 3, 4))
        assert set(found.tolist()) == values
        # All items of an episode are of one member.
        assert torch.equal(episodes.query_x.amin((1, 2, 3, 4)), found)


def test_collection_is_the_same_in_any_parts(collection: Collection) -> None:
    shape = EpisodeShape(way=1, shot=1, query=2)
    whole = collection.episodes("test", range(10), shape, seed=0).support.x
    parts = [collection.episodes("test", [n], shape, seed=0).support.x for n in range(10)]
    assert torch.equal(whole, torch.cat(parts))
    shapes = MetaDatasetShape(min_way=2)
    assert collection.episodes("test", [4], shapes, seed=0).support.way == 2
    twin = Collection(members=collection.members[:2])
    assert twin.describe()["fingerprint"] != collection.describe()["fingerprint"]


def test_collection_refuses_what_does_not_fit(collection: Collection) -> None:
    grey = collection.members[0]
    with pytest.raises(UserError, match="collection of grey"):
        Collection(members=(grey,))
    with pytest.raises(UserError, match="each once"):
        Collection(members=(grey, grey))
    with pytest.raises(UserError, match="items of different shapes"):
        Collection(members=(grey, from_arrays(np.zeros((20, 3)), np.arange(20) // 4)))
    with pytest.raises(UserError, match="Unknown split 'nowhere'"):
        collection.episodes("nowhere", [0], EpisodeShape(), 0)
