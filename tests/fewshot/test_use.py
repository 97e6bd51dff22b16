from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metarl.errors import UserError
from metarl.fewshot import LEARNERS, EpisodeShape, config_class, from_arrays, load_data, predict, score
from metarl.fewshot.data import Collection
from metarl.fewshot.data.molecules import from_csv
from metarl.fewshot.form import ItemForm
from metarl.fewshot.learners import make
from metarl.fewshot.manifest import make as make_manifest
from metarl.fewshot.measure import measure
from metarl.fewshot.parts.backbones import MlpBackbone
from metarl.fewshot.parts.learner import Setting
from metarl.seeding import Streams
from tests.helpers.tiny_fewshot import SHAPE, untrained, vectors

CPU = torch.device("cpu")


def test_score_is_mean_and_interval() -> None:
    data = vectors()
    proto = untrained("proto")
    found = score(proto, data, episodes=100)
    values = measure(proto, data, make_manifest(data, "test", 100, SHAPE, 0)).values
    assert found.estimate == pytest.approx(values.mean().item())
    assert found.lower < found.estimate < found.upper
    assert score(proto, data, episodes=100, shape=EpisodeShape(way=2, shot=5, query=3)).estimate > found.estimate


def test_predict_answers_with_the_labels_given() -> None:
    data = vectors()
    part = data.split("test")
    support, queries = part.items[: 12 * 3 : 12], part.items[1 : 12 * 3 : 12]
    answers, probabilities = predict(untrained("proto"), data, support.numpy(), ["c", "a", "b"], queries.numpy())
    assert set(answers) <= {"a", "b", "c"}
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(3))
    # The items themselves are answered right, whatever the learner.
    answers, _ = predict(untrained("proto"), data, support, ["c", "a", "b"], support)
    assert answers == ["c", "a", "b"]
    with pytest.raises(UserError, match="Got 3 items and 2 labels"):
        predict(untrained("proto"), data, support, ["c", "a"], queries)
    with pytest.raises(UserError, match=r"items of the shape \(3, 11\); vectors was trained on vectors, 12 numbers"):
        predict(untrained("proto"), data, support[:, 1:], ["c", "a", "b"], queries)
    with pytest.raises(UserError, match=r"\(uint8\), and vectors was trained on float32"):
        predict(untrained("proto"), data, support.to(torch.uint8), ["c", "a", "b"], queries)
    with pytest.raises(UserError, match=r"queries of the shape \(3, 11\)"):
        predict(untrained("proto"), data, support, ["c", "a", "b"], queries[:, 1:])
    other = from_arrays(np.random.default_rng(0).random((30, 7)), np.arange(30) // 3)
    with pytest.raises(UserError, match=r"learner of items \(12,\), and arrays with items \(7,\)"):
        predict(untrained("proto"), other, np.zeros((2, 7)), [0, 1], np.zeros((1, 7)))


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_predicts(name: str) -> None:
    data = vectors()
    items = data.split("test").items[:4]
    setting = Setting(shape=SHAPE, backbone=MlpBackbone(item_shape=(12,), hidden=(16,)), classes=25)
    learner = make(name, config_class(name)(), setting, Streams(0), torch.device("cpu"))
    answers, probabilities = predict(learner, data.form, items, [0, 1, 0, 1], items[:3])
    assert set(answers) <= {0, 1}
    assert probabilities.shape == (3, 2)


@pytest.mark.parametrize(
    ("labels", "known"),
    [
        ([1, "other", 1], [1, "other"]),
        (torch.tensor([3, 1, 3]), [1, 3]),
        (np.array(["b", "a", "b"]), ["a", "b"]),
        ([np.int64(2), np.float64(0.5), 2], [0.5, 2]),
        ([True, False, False], [False, True]),
    ],
)
def test_labels_may_be_numbers_and_words(labels: Any, known: list[Any]) -> None:
    data = vectors()
    items = data.split("test").items[:36:12]
    answers, probabilities = predict(untrained("proto"), data, items, labels, items)
    assert set(answers) <= set(known)
    # Numbers come before words.
    assert [known[place] for place in probabilities.argmax(-1).tolist()] == answers
    answers, probabilities = predict(untrained("proto"), data, items, labels, items[:0])
    assert (answers, probabilities.shape) == ([], (0, 2))


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([1, "1", 2], "read alike as numbers and as words"),
        ([1, 1, 1], "Got one label only, 1. Give items of at least 2 classes"),
        ([1, None, 2], "Got the label None. Give numbers or words"),
        ([1, math.nan, 2], "Got the label nan"),
        ([1, 10**5000, 2], "Got the label of more than 64 bits"),
        ("abc", "Got labels of the type str"),
        ({1: 2, 3: 4, 5: 6}, "Got labels of the type dict"),
        ({1, 2, 3}, "Got labels of the type set"),
        (None, "Got labels of the type NoneType"),
        (np.array(3), "Got labels of the type int"),
        (np.ma.array([1, 2, 3], mask=[True, False, False]), "Got labels with masked values"),
        ([[1, 0], [0, 1], [1, 0]], r"Got the label \[1, 0\]"),
        ([1, 2], "Got 3 items and 2 labels"),
    ],
)
def test_labels_that_mean_nothing_are_refused(labels: Any, says: str) -> None:
    data = vectors()
    items = data.split("test").items[:3]
    with pytest.raises(UserError, match=says):
        predict(untrained("proto"), data, items, labels, items)
    with pytest.raises(UserError, match="Got no items to learn from"):
        predict(untrained("proto"), data, items[:0], [], items)


@pytest.mark.parametrize("part", ["support", "queries"])
@pytest.mark.parametrize(
    ("value", "says"),
    [(math.nan, "have values that are NaN"), (math.inf, "infinite"), (3e38, "The answers for .* are NaN")],
)
def test_items_that_are_no_numbers_get_no_answer(part: str, value: float, says: str) -> None:
    data = vectors()
    items = {name: np.zeros((2, *data.item_shape), np.float32) for name in ("support", "queries")}
    items["support"][1] = 1.0
    items[part][:] = value
    with pytest.raises(UserError, match=says):
        predict(untrained("proto"), data, items["support"], [0, 1], items["queries"])


def of_form(form: ItemForm) -> Any:
    setting = Setting(shape=SHAPE, backbone=MlpBackbone(item_shape=form.shape, hidden=(16,)))
    return make("proto", config_class("proto")(), setting, Streams(0), torch.device("cpu"))


def test_collections_predict_by_the_moments_of_all_members() -> None:
    generator = np.random.default_rng(0)
    classes = np.arange(60) // 6
    near, far = (generator.normal(mean, 1.0, (60, 2, 40)).astype(np.float32) for mean in (0.0, 10.0))
    members = (from_arrays(near, classes, name="near"), from_arrays(far, classes, name="far"))
    data = Collection(members=members)
    x = torch.cat([member.split("train").items for member in members])
    deviation, mean = torch.std_mean(x, dim=(0, 2), correction=0)
    assert data.form.mean == pytest.approx(mean.tolist(), rel=1e-4)
    assert data.form.deviation == pytest.approx(deviation.tolist(), rel=1e-4)
    learner = of_form(data.form)
    items = far[[0, 6]]
    assert predict(learner, data, items, ["a", "b"], items)[0] == ["a", "b"]
    # As one member's, where that is known.
    assert predict(learner, data.members[1], items, ["a", "b"], items)[0] == ["a", "b"]


def molecules(folder: Path) -> Any:
    rows = ["smiles,a,b,c,d", *("C" * (n + 1) + f",{n % 2},{n % 3 % 2},{n % 2},{n % 3 % 2}" for n in range(30))]
    (folder / "m.csv").write_text("\n".join(rows))

    def prints(smiles: Any) -> np.ndarray:
        return np.random.default_rng(0).integers(0, 2, (len(smiles), 16)).astype(np.uint8)

    return from_csv(folder / "m.csv", fingerprint=prints)


def test_molecules_predict_with_inactive_before_active(tmp_path: Path) -> None:
    data = molecules(tmp_path)
    learner = of_form(data.form)
    items, labels = np.eye(16)[:4], ["inactive", "active", "inactive", "active"]
    answers, probabilities = predict(learner, data, items, labels, items)
    assert answers == labels
    assert probabilities.argmax(-1).tolist() == [0, 1, 0, 1]
    for dtype in (np.uint8, np.int64, bool):
        assert torch.equal(predict(learner, data, items.astype(dtype), [0, 1, 0, 1], items)[1], probabilities)
    with pytest.raises(UserError, match=r"are always inactive and active. Name them so, or 0 and 1"):
        predict(learner, data, items, ["toxic", "safe", "toxic", "safe"], items)


def test_functions_predict_without_queries_too() -> None:
    backbone = MlpBackbone(item_shape=(1,), hidden=(8,))
    learner = make("maml", config_class("maml")(), Setting(shape=SHAPE, backbone=backbone, outputs=1), Streams(0), CPU)
    x = np.linspace(-5.0, 5.0, 6)
    data: Any = load_data("sinusoid")
    assert predict(learner, data, x, np.sin(x), x[:4]).shape == (4, 1)
    assert predict(learner, data, x, np.sin(x), []).shape == (0, 1)
    with pytest.raises(UserError, match="layout nchw for sinusoid"):
        predict(learner, data, x, np.sin(x), x, layout="nchw")
