from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from metarl.errors import UserError
from metarl.fewshot.data import from_arrays, load
from metarl.fewshot.episodes import EpisodeShape
from tests.helpers.image_files import data_of

pytestmark = pytest.mark.usefixtures("cache_root")


def test_from_arrays_makes_episodes() -> None:
    classes = np.repeat(np.arange(100, 125), 8)
    np.random.default_rng(0).shuffle(classes)
    items = classes[:, None].astype(np.float64) + np.zeros((200, 4))
    data = from_arrays(items, classes)
    assert {name: len(part.names) for name, part in data.splits.items()} == {"train": 16, "validation": 4, "test": 5}
    assert sorted(name for part in data.splits.values() for name in part.names) == [str(c) for c in range(100, 125)]
    for part in data.splits.values():
        assert part.items[:, 0].tolist() == [float(part.names[label]) for label in part.labels.tolist()]
        assert [items[int(origin.split()[1]), 0] for origin in part.origins] == part.items[:, 0].tolist()
    episodes = data.episodes("train", range(3), EpisodeShape(way=5, shot=2, query=3), seed=0)
    assert episodes.support.x.shape == (3, 10, 4)
    train = data.splits["train"].items
    assert torch.allclose(data.scaled(train).mean(0), torch.zeros(4), atol=1e-5)
    assert torch.allclose(data.scaled(train).std(0, correction=0), torch.ones(4), atol=1e-5)
    assert from_arrays(items, classes, seed=1).splits["test"].names != data.splits["test"].names


def test_from_arrays_with_given_splits() -> None:
    items = torch.arange(60, dtype=torch.uint8).view(15, 2, 2)
    classes = torch.arange(5).repeat_interleave(3)
    data = from_arrays(items, classes, splits={"train": [4, 0], "test": [2]}, layout="nhw")
    assert {name: part.names for name, part in data.splits.items()} == {"train": ("0", "4"), "test": ("2",)}
    # Grey images got a channel axis, and bytes stayed bytes.
    assert data.item_shape == (1, 2, 2)
    assert data.splits["test"].items.dtype == torch.uint8
    assert data.splits["test"].items.flatten().tolist() == list(range(24, 36))


def test_classes_may_be_words() -> None:
    names = ["oak", "elm", "fir", "yew", "bay"]
    items = torch.arange(60).view(15, 4).float()
    splits = {"train": ["yew", "oak"], "test": ["elm"]}
    given = [name for name in names for _ in range(3)]
    for classes in (given, np.array(given), np.array(given, dtype=object), [np.str_(name) for name in given]):
        data = from_arrays(items, classes, splits=splits, layout="nf")
        assert {name: part.names for name, part in data.splits.items()} == {"train": ("oak", "yew"), "test": ("elm",)}
        assert torch.equal(data.splits["train"].items, torch.cat([items[:3], items[9:12]]))
    at_random = from_arrays(items, given, layout="nf")
    assert sorted(name for part in at_random.splits.values() for name in part.names) == sorted(names)


def test_from_arrays_refuses_bad_input() -> None:
    items, classes = np.zeros((20, 3), np.float32), np.arange(20) // 4
    with pytest.raises(UserError, match=r"classes of the type float64; the first is \[0.5\]. If they are values"):
        from_arrays(items, classes + 0.5)
    for wrong in (classes > 2, classes.astype(complex), classes.astype("S"), ["a", *range(19)], [None, *"b" * 19]):
        with pytest.raises(UserError, match=r"Got classes of the type .* Give all as integers, or all as words\."):
            from_arrays(items, wrong)
    with pytest.raises(UserError, match=r"an empty word as the class of item 3"):
        from_arrays(items, ["a", "b", "c", " ", *"d" * 16])
    with pytest.raises(UserError, match=r"20 items and classes of the shape \(19,\)"):
        from_arrays(items, classes[1:])
    bad = items.copy()
    bad[7, 2] = np.nan
    bad[9, 0] = np.inf
    with pytest.raises(UserError, match=r"2 of 20 items .*the first is item 7"):
        from_arrays(bad, classes)
    with pytest.raises(UserError, match=r"mixed size: item 0 has the shape \(3,\), item 5 \(4,\)"):
        from_arrays([np.zeros(3 + (i == 5)) for i in range(20)], classes)
    ragged = np.empty(20, object)
    ragged[:] = [np.zeros(3 + (i == 5)) for i in range(20)]
    with pytest.raises(UserError, match="mixed size"):
        from_arrays(ragged, classes)
    with pytest.raises(UserError, match="Got items of the type <U1"):
        from_arrays(np.full((20, 3), "a"), classes)
    with pytest.raises(UserError, match=r"items of the shape \(20,\)"):
        from_arrays(items[:, 0], classes)
    with pytest.raises(UserError, match=r"items of the shape \(20, 0\)"):
        from_arrays(items[:, :0], classes)
    with pytest.raises(UserError, match="Got 1 classes of arrays"):
        from_arrays(items, np.zeros(20, int))
    with pytest.raises(UserError, match=r"3 stands in the splits 'train' and 'test'"):
        from_arrays(items, classes, splits={"train": [1, 3], "test": [3]})
    with pytest.raises(UserError, match=r"names 9, which is not among the 5"):
        from_arrays(items, classes, splits={"train": [1], "test": [9]})
    with pytest.raises(UserError, match="Unknown split 'val'"):
        from_arrays(items, classes, splits={"val": [1]})
    with pytest.raises(UserError, match="three that add up to 1"):
        from_arrays(items, classes, fractions=(0.5, 0.4, 0.4))


def test_arrays_from_files(tmp_path: Path) -> None:
    items, classes = np.random.default_rng(0).random((40, 3)), np.arange(40) // 4
    np.save(tmp_path / "items.npy", items)
    with pytest.raises(UserError, match=r"Looked for: classes.npy. Found: .*items.npy"):
        load("arrays", tmp_path)
    np.save(tmp_path / "classes.npy", classes)
    assert data_of(load("arrays", tmp_path)).fingerprint == from_arrays(items, classes).fingerprint
    (tmp_path / "classes.npy").write_bytes((tmp_path / "classes.npy").read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be read"):
        load("arrays", tmp_path)


def test_both_layouts_of_pictures_are_the_same_data() -> None:
    x = np.random.default_rng(0).integers(0, 256, (40, 12, 14, 3)).astype(np.uint8)
    classes = np.arange(40) // 4
    last, first = from_arrays(x, classes), from_arrays(np.ascontiguousarray(x.transpose(0, 3, 1, 2)), classes)
    assert (last.layout, first.layout) == ("nhwc", "nchw")
    assert last.item_shape == (3, 12, 14)
    assert last.fingerprint == first.fingerprint
    assert last.mean == first.mean
    assert torch.equal(last.form.take(x), first.form.take(x))


def test_signals_have_a_mean_and_a_deviation_for_every_channel() -> None:
    generator = np.random.default_rng(0)
    x = np.stack([generator.normal(0.0, 0.01, (40, 64)), generator.normal(300.0, 50.0, (40, 64))], axis=1)
    classes = np.arange(40) // 4
    for given in (x, x[:, :, None], x.transpose(0, 2, 1), x.transpose(0, 2, 1)[:, :, None]):
        data = from_arrays(given, classes)
        assert data.form.kind == "signal"
        assert data.item_shape == (2, 64)
        train = data.splits["train"].items
        assert data.mean == pytest.approx(train.mean((0, 2)).tolist(), rel=1e-3)
        assert data.deviation == pytest.approx((0.01, 50.0), rel=0.1)
    alone = from_arrays(x[:, :1, None], classes)
    assert (alone.form.kind, alone.item_shape) == ("signal", (1, 64))


def test_a_layout_that_is_not_certain_is_asked_for_and_the_advice_works(tmp_path: Path) -> None:
    x, classes = np.random.default_rng(0).random((40, 16, 16, 16)), np.arange(40) // 4
    with pytest.raises(UserError, match=r"\(40, 16, 16, 16\), whose axes .* `layout` \(--layout .*nchw or nhwc"):
        from_arrays(x, classes)
    last, first, plain = (from_arrays(x, classes, layout=layout) for layout in ("nhwc", "nchw", "plain"))
    assert torch.equal(last.form.take(x), last.form.take(x.transpose(0, 3, 1, 2), layout="nchw"))
    assert last.fingerprint != first.fingerprint == plain.fingerprint
    np.save(tmp_path / "items.npy", x)
    np.save(tmp_path / "classes.npy", classes)
    with pytest.raises(UserError, match="--layout of the command"):
        load("arrays", tmp_path)
    assert data_of(load("arrays", tmp_path, layout="nhwc")).fingerprint == last.fingerprint
    with pytest.raises(UserError, match="Got the layout 'hwc'"):
        load("arrays", tmp_path, layout="hwc")
