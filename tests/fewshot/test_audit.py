from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metarl.errors import UserError
from metarl.fewshot.audit import Report, audit
from metarl.fewshot.classes import ClassData, ClassSplit, Drawn
from metarl.fewshot.data import Collection, from_arrays, load, molecules
from metarl.fewshot.episodes import Episodes, EpisodeShape, MetaDatasetShape


@pytest.fixture
def data() -> ClassData:
    generator = torch.Generator().manual_seed(0)
    items = torch.randint(0, 256, (400, 1, 4, 4), dtype=torch.uint8, generator=generator)
    return from_arrays(items, torch.arange(400) // 16, layout="nchw")


def found(report: Report) -> dict[str, int]:
    return {finding.check: finding.count for finding in report.findings if finding.count}


def changed(data: ClassData, split: str, **changes: Any) -> ClassData:
    return replace(data, splits={**data.splits, split: replace(data.splits[split], **changes)})


def test_sound_data_pass(data: ClassData) -> None:
    report = audit(data, episodes=40)
    assert report.ok
    assert found(report) == {}
    assert report.splits["train"] == {"classes": 16, "items": 256}
    assert report.shape == EpisodeShape(way=4, shot=1, query=15)
    assert json.loads(json.dumps(report.describe()))["ok"] is True
    assert audit(data, episodes=10, shape=MetaDatasetShape(min_way=2)).ok


@pytest.mark.parametrize("episodes", [-1, 1_000_001, 2**31])
def test_more_episodes_than_end_in_time_are_refused(episodes: int, data: ClassData) -> None:
    with pytest.raises(UserError, match=f"--episodes {episodes}. Allowed: from 0 to 1,000,000"):
        audit(data, episodes=episodes)


def test_shared_class_is_a_leak(data: ClassData) -> None:
    names = list(data.splits["test"].names)
    names[2] = data.splits["train"].names[5]
    report = audit(changed(data, "test", names=tuple(names)), episodes=5)
    assert not report.ok
    assert found(report) == {"class in two splits": 1}
    (finding,) = (finding for finding in report.findings if finding.count)
    assert finding.examples == (f"{names[2]}: train and test",)


def test_shared_origin_is_a_leak(data: ClassData) -> None:
    origins = list(data.splits["validation"].origins)
    origins[3] = data.splits["train"].origins[0]
    assert found(audit(changed(data, "validation", origins=tuple(origins)), episodes=5)) == {"origin in two splits": 1}


def test_equal_item_in_two_splits_is_a_leak(data: ClassData) -> None:
    items = data.splits["test"].items.clone()
    items[7] = data.splits["train"].items[100]
    report = audit(changed(data, "test", items=items), episodes=5)
    assert not report.ok
    assert found(report) == {"equal items in two splits": 1}
    (finding,) = (finding for finding in report.findings if finding.count)
    assert "train" in finding.examples[0]
    assert data.splits["test"].origins[7] in finding.examples[0]


def test_equal_item_in_two_classes_is_a_leak_and_in_one_is_told(data: ClassData) -> None:
    items = data.splits["train"].items.clone()
    items[1] = items[0]
    report = audit(changed(data, "train", items=items), episodes=5)
    assert report.ok
    assert found(report) == {"equal items in one class": 1}
    items[20] = items[0]
    report = audit(changed(data, "train", items=items), episodes=5)
    assert not report.ok
    assert found(report) == {"equal items in one class": 1, "equal items in two classes": 1}


@dataclass(frozen=True, kw_only=True)
class Leaky(ClassData):
    """Draws episodes with a planted fault."""

    fault: str = ""

    def draw(self, split: str, numbers: Sequence[int], shape: Any, seed: int) -> Drawn:
        drawn = super().draw(split, numbers, shape, seed)
        if self.fault == "overlap":
            drawn.query_rows[:, 0] = drawn.support_rows[:, 0]
        elif self.fault == "twice":
            drawn.query_rows[:, 1] = drawn.query_rows[:, 0]
        elif self.fault == "labels":
            return replace(drawn, query_y=drawn.query_y.flip(1))
        elif self.fault == "order":
            classes = self.split(split).labels[drawn.support_rows]
            order = classes.argsort(1)
            rank = drawn.support_rows.gather(1, order)
            query = drawn.query_rows.gather(1, self.split(split).labels[drawn.query_rows].argsort(dim=1, stable=True))
            return replace(drawn, support_rows=rank, query_rows=query)
        return drawn


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("overlap", "item both in support and query"),
        ("twice", "item twice in an episode"),
        ("labels", "wrong label in an episode"),
        ("order", "labels not permuted"),
    ],
)
def test_faulty_episodes_are_found(data: ClassData, fault: str, check: str) -> None:
    leaky = Leaky(name="leaky", splits=data.splits, fault=fault)
    report = audit(leaky, episodes=25, shape=EpisodeShape(way=4, shot=1, query=3))
    assert not report.ok
    assert check in found(report)
    assert audit(replace(leaky, fault=""), episodes=25, shape=EpisodeShape(way=4, shot=1, query=3)).ok


@dataclass(frozen=True, kw_only=True)
class Swapped(ClassData):
    """Gives episodes that are not those it draws."""

    def episodes(self, split: str, numbers: Sequence[int], shape: Any, seed: int) -> Episodes:
        return super().episodes(split, [number + 1 for number in numbers], shape, seed)


def test_episodes_have_to_be_those_drawn(data: ClassData) -> None:
    report = audit(Swapped(name="swapped", splits=data.splits), episodes=5)
    assert found(report) == {"episode is not its rows": 15}


def test_rotations_are_told(tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METARL_CACHE", str(tmp_path))
    if not (data_root / "omniglot").is_dir():
        pytest.skip(f"no Omniglot at {data_root}")
    report = audit(load("omniglot@small1-small2-x4", data_root, size=28), episodes=5)
    assert report.ok
    # Each of 136 + 106 characters' 20 drawings stands there three more times, turned.
    assert found(report) == {"origin in two classes": 3 * 20 * 242}


def test_collection_is_searched_across_its_members(data: ClassData) -> None:
    other = replace(data, name="other", splits={"test": data.splits["train"]})
    report = audit(Collection(members=(data, other)), episodes=5)
    assert not report.ok
    assert found(report) == {"equal items in two splits": 256}
    assert set(report.splits) == {"arrays/train", "arrays/validation", "arrays/test", "other/test"}


def test_molecules_may_stand_in_several_assays(tmp_path: Path) -> None:
    lines = ["smiles," + ",".join(f"a{i}" for i in range(5))]
    lines += ["C" * (m + 1) + "," + ",".join(str((m + i) % 2) for i in range(5)) for m in range(12)]
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")

    def lengths(smiles: Sequence[str]) -> np.ndarray:
        return np.array([[len(text)] for text in smiles], np.uint8)

    report = audit(molecules.from_csv(tmp_path / "m.csv", fingerprint=lengths), episodes=25)
    assert report.ok
    assert report.shape == EpisodeShape(way=2, shot=1, query=5)
    assert found(report)["equal items in two splits"] > 0


class Functions:
    name, item_shape, outputs = "sines", (1,), 1

    def episodes(self, split: str, numbers: Sequence[int], shape: EpisodeShape, seed: int) -> Episodes:
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        return {}


def test_functions_cannot_be_audited() -> None:
    with pytest.raises(UserError, match="sines, which has no classes"):
        audit(Functions())


def test_class_of_one_item_is_told() -> None:
    part = ClassSplit(items=torch.zeros(3, 2), sizes=torch.tensor([2, 1]), names=("a", "b"))
    with pytest.raises(UserError, match="class 'b' has 1 item"):
        audit(ClassData(name="small", splits={"train": part}))
