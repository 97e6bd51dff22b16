from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from metarl.errors import UserError
from metarl.fewshot.classes import ClassData, ClassSplit, Drawn
from metarl.fewshot.episodes import Episodes, EpisodeShape, MetaDatasetShape, keyed, uniform

SHAPE = EpisodeShape(way=5, shot=2, query=3)


def split_of(sizes: list[int], start: int = 0, groups: tuple[str, ...] = ()) -> ClassSplit:
    rows = sum(sizes)
    # The value of an item says which row it is.
    items = torch.arange(start, start + rows, dtype=torch.float32)[:, None].expand(rows, 2).contiguous()
    return ClassSplit(
        items=items,
        sizes=torch.tensor(sizes),
        names=tuple(f"class {start}-{i}" for i in range(len(sizes))),
        groups=groups,
    )


@pytest.fixture
def data() -> ClassData:
    return ClassData(
        name="numbers",
        splits={"train": split_of([20] * 12), "test": split_of([7, 9, 20, 11, 8, 30], start=1000)},
    )


def joined(parts: list[Episodes]) -> tuple[Tensor, ...]:
    return (
        torch.cat([part.support.x for part in parts]),
        torch.cat([part.support.y for part in parts]),
        torch.cat([part.query_x for part in parts]),
        torch.cat([part.query_y for part in parts]),
    )


@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_episodes_are_the_same_in_any_number_of_parts(data: ClassData, parts: int) -> None:
    numbers = list(range(40, 48))
    whole = joined([data.episodes("train", numbers, SHAPE, seed=3)])
    # Part i has every parts-th number, as ranks share them out.
    shares = [data.episodes("train", numbers[i::parts], SHAPE, seed=3) for i in range(parts)]
    order = torch.tensor([i + parts * k for i in range(parts) for k in range(len(numbers) // parts)]).argsort()
    for expected, found in zip(whole, joined(shares), strict=True):
        assert torch.equal(expected, found[order])


def test_seed_split_and_number_make_other_episodes(data: ClassData) -> None:
    first = data.draw("train", [0], SHAPE, seed=0).support_rows
    assert not torch.equal(first, data.draw("train", [1], SHAPE, seed=0).support_rows)
    assert not torch.equal(first, data.draw("train", [0], SHAPE, seed=1).support_rows)
    twin = ClassData(name="twin", splits={"train": data.splits["train"], "test": data.splits["train"]})
    assert not torch.equal(first, twin.draw("test", [0], SHAPE, seed=0).support_rows)


def test_labels_and_rows_belong_together(data: ClassData) -> None:
    part = data.splits["test"]
    drawn = data.draw("test", range(200), SHAPE, seed=0)
    for support, support_y, query, query_y in zip(
        drawn.support_rows, drawn.support_y, drawn.query_rows, drawn.query_y, strict=True
    ):
        assert not set(support.tolist()) & set(query.tolist())
        assert len(set(support.tolist())) == len(support) == 10
        assert len(set(query.tolist())) == len(query) == 15
        classes = {int(y): int(part.labels[row]) for y, row in zip(support_y, support, strict=True)}
        assert sorted(classes) == list(range(5))
        assert len(set(classes.values())) == 5
        found = [classes[int(y)] for y in query_y]
        assert found == part.labels[query].tolist()


def test_labels_are_permuted(data: ClassData) -> None:
    drawn = data.draw("train", range(1200), SHAPE, seed=0)
    labels_of_first: Counter[int] = Counter()
    for rows, labels in zip(drawn.support_rows, drawn.support_y, strict=True):
        own = labels[data.splits["train"].labels[rows] == 0]
        labels_of_first.update(own[:1].tolist())
    # 500 are expected, a standard deviation being 17; each of five labels 100, with 9.
    assert 430 < labels_of_first.total() < 570
    assert all(64 < labels_of_first[label] < 136 for label in range(5))


def test_gathered_items_are_those_of_the_rows(data: ClassData) -> None:
    drawn = data.draw("test", [5, 6], SHAPE, seed=0)
    episodes = data.episodes("test", [5, 6], SHAPE, seed=0)
    assert torch.equal(episodes.support.x[..., 0], drawn.support_rows + 1000.0)
    assert torch.equal(episodes.query_x[..., 1], drawn.query_rows + 1000.0)


def test_too_many_ways(data: ClassData) -> None:
    with pytest.raises(UserError, match=r"Got 7 ways, and the split 'test' of numbers has 6 classes"):
        data.draw("test", [0], EpisodeShape(way=7), seed=0)


def test_too_many_items(data: ClassData) -> None:
    with pytest.raises(UserError, match=r"3 shots and 5 queries, 8 items .* class 'class 1000-0' .* has 7"):
        data.draw("test", [0], EpisodeShape(way=5, shot=3, query=5), seed=0)


def test_unknown_split(data: ClassData) -> None:
    with pytest.raises(UserError, match=r"Unknown split 'tset'. Did you mean 'test'"):
        data.draw("tset", [0], SHAPE, seed=0)


# -- Meta-Dataset -----------------------------------------------------------------------------------------------------


def shots_of(drawn: Drawn) -> list[int]:
    return torch.bincount(drawn.support_y[0], minlength=drawn.way).tolist()


def test_meta_dataset_ways_are_uniform() -> None:
    data = ClassData(name="many", splits={"train": split_of([4] * 60)})
    ways = Counter(data.draw("train", [n], MetaDatasetShape(), seed=0).way for n in range(460))
    assert sorted(ways) == list(range(5, 51))
    # 46 values, 10 episodes each: chi square has mean 45 and deviation 9.5.
    assert sum((count - 10) ** 2 / 10 for count in ways.values()) < 80


def test_meta_dataset_with_equal_classes() -> None:
    # Of 20 items 10 are queries and 10 are left. With equal weights every class has ceil(10 β) shots, β ~ U(0, 1].
    data = ClassData(name="equal", splits={"train": split_of([20] * 8)})
    shape = MetaDatasetShape(min_log_weight=0.0, max_log_weight=0.0)
    found: Counter[int] = Counter()
    for number in range(500):
        drawn = data.draw("train", [number], shape, seed=0)
        shots = shots_of(drawn)
        assert drawn.query_rows.shape == (1, 10 * drawn.way)
        assert len(set(shots)) == 1
        found[shots[0]] += 1
    assert sorted(found) == list(range(1, 11))
    assert abs(sum(k * n for k, n in found.items()) / 500 - 5.5) < 0.3


def test_meta_dataset_follows_class_frequencies() -> None:
    # Queries: min(10, 20 // 2). The support set is cut to 21; p = (100, 20) / 120; floor(p * (21 - 2)) + 1 = (16, 4).
    data = ClassData(name="uneven", splits={"train": split_of([100, 20])})
    shape = MetaDatasetShape(min_way=2, max_way=2, max_support=21, min_log_weight=0.0, max_log_weight=0.0)
    seen = set()
    for number in range(60):
        drawn = data.draw("train", [number], shape, seed=0)
        classes = data.splits["train"].labels[drawn.support_rows[0]]
        seen.add(tuple(torch.bincount(classes, minlength=2).tolist()))
        assert drawn.query_rows.shape == (1, 20)
    # A small β leaves the support set below the cut.
    assert (16, 4) in seen
    assert max(seen) == (16, 4)


def test_meta_dataset_weights_stay_in_their_range() -> None:
    data = ClassData(name="large", splits={"train": split_of([1000, 1000])})
    shape = MetaDatasetShape(min_way=2, max_way=2, max_contribution=400)
    ratios = []
    for number in range(300):
        shots = shots_of(data.draw("train", [number], shape, seed=0))
        if sum(shots) > 400:
            ratios.append(max(shots) / min(shots))
    # exp(U[ln .5, ln 2]) of one class over that of the other.
    assert 3.0 < max(ratios) < 4.1


def test_meta_dataset_episodes_are_sound(data: ClassData) -> None:
    part = data.splits["test"]
    for number in range(60):
        drawn = data.draw("test", [number], MetaDatasetShape(), seed=1)
        support, query = drawn.support_rows[0], drawn.query_rows[0]
        assert not set(support.tolist()) & set(query.tolist())
        assert len(set(support.tolist())) == len(support) <= 500
        classes = {int(y): int(part.labels[row]) for y, row in zip(drawn.support_y[0], support, strict=True)}
        assert len(set(classes.values())) == drawn.way
        assert [classes[int(y)] for y in drawn.query_y[0]] == part.labels[query].tolist()
        smallest = min(int(part.sizes[place]) for place in classes.values())
        assert len(query) == drawn.way * min(10, smallest // 2)
        again = data.episodes("test", [number], MetaDatasetShape(), seed=1)
        assert torch.equal(again.support.x[0, :, 0], support + 1000.0)


def test_meta_dataset_within_a_group() -> None:
    groups = ("a",) * 6 + ("b",) * 3 + ("c",) * 7
    part = split_of([10] * 16, groups=groups)
    data = ClassData(name="grouped", splits={"train": part})
    found = set()
    for number in range(60):
        rows = data.draw("train", [number], MetaDatasetShape(within_group=True), seed=0).support_rows[0]
        of_episode = {groups[label] for label in part.labels[rows].tolist()}
        assert len(of_episode) == 1
        found |= of_episode
    assert found == {"a", "c"}
    with pytest.raises(UserError, match="8 ways or more of one group"):
        data.draw("train", [0], MetaDatasetShape(min_way=8, within_group=True), seed=0)


def test_meta_dataset_refuses_what_it_cannot_draw(data: ClassData) -> None:
    with pytest.raises(UserError, match="one by one"):
        data.draw("train", [0, 1], MetaDatasetShape(), seed=0)
    with pytest.raises(UserError, match=r"Got 13 ways or more, and .* has 12 classes"):
        data.draw("train", [0], MetaDatasetShape(min_way=13), seed=0)
    single = ClassData(name="single", splits={"train": split_of([5, 5, 1, 5, 5])})
    with pytest.raises(UserError, match=r"class 'class 0-2' .* has 1 item"):
        single.draw("train", [0], MetaDatasetShape(), seed=0)
    with pytest.raises(UserError, match="--max-way 4"):
        MetaDatasetShape(max_way=4)
    with pytest.raises(UserError, match="--max-support 49"):
        MetaDatasetShape(max_support=49)
    assert replace(MetaDatasetShape(), min_way=1).min_way == 1


# -- keyed randomness -------------------------------------------------------------------------------------------------


def test_keyed_integers_look_random() -> None:
    found = uniform(range(2000), 50, "test").flatten()
    assert 0.0 <= float(found.min()) < float(found.max()) < 1.0
    # 100,000 draws: mean and deviation within five standard errors.
    assert abs(float(found.mean()) - 0.5) < 5 / math.sqrt(12 * 100_000)
    assert abs(float(found.std()) - math.sqrt(1 / 12)) < 0.002
    rows = uniform(range(2000), 2, "test")
    assert abs(float(torch.corrcoef(rows.T)[0, 1])) < 0.1
    assert abs(float(torch.corrcoef(torch.stack((rows[:-1, 0], rows[1:, 0])))[0, 1])) < 0.1


def test_keyed_integers_depend_on_key_and_number_alone() -> None:
    assert torch.equal(keyed([7], 3, 0, "a"), keyed([5, 7], 3, 0, "a")[1:])
    assert torch.equal(keyed([7], 3, 0, "a"), keyed([7], 9, 0, "a")[:, :3])
    assert not torch.equal(keyed([7], 3, 0, "a"), keyed([7], 3, 0, "b"))
    assert not torch.equal(keyed([7], 3, 0, "a"), keyed([7], 3, 1, "a"))


def test_scaling_leaves_the_given_items_alone(data: ClassData) -> None:
    items = torch.full((3, 2), 7.0)
    scaled = replace(data, mean=(1.0,), deviation=(2.0,)).scaled(items)
    assert scaled.unique().tolist() == [3.0]
    assert items.unique().tolist() == [7.0]
