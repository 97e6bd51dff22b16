"""Contenders of the few-shot benchmark: sampling a meta-batch of episodes, as ours, item by item, as easyfsl does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import torch
from torch import Tensor

from metarl.fewshot.classes import ClassData, ClassSplit
from metarl.fewshot.episodes import Episodes, EpisodeShape

CLASSES = 964
ITEMS = 20
"""Images of a class."""
SHAPE = EpisodeShape(way=5, shot=1, query=1)
TITLE = "Episodes of 28x28 images, 5-way 1-shot, 1 query"


class Pictures(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Images in memory, given out one by one, scaled; `get_labels` is what easyfsl asks for."""

    def __init__(self, pictures: Tensor) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return (self.pictures[row].float() / 255.0 - 0.5) / 0.5, row // ITEMS

    def get_labels(self) -> list[int]:
        """Return the class of every picture."""
        return [row // ITEMS for row in range(len(self))]


def by_item(dataset: Pictures, tasks: int) -> Callable[[], list[tuple[Tensor, Tensor]]]:
    """Return the sampling of a meta-batch by torch's own loader, a list of rows for every episode."""
    generator = torch.Generator().manual_seed(0)

    class Rows(torch.utils.data.Sampler[list[int]]):
        def __len__(self) -> int:
            return tasks

        def __iter__(self) -> Iterator[list[int]]:
            for _ in range(tasks):
                chosen = torch.randperm(CLASSES, generator=generator)[:5].tolist()
                places = [torch.randperm(ITEMS, generator=generator)[:2].tolist() for _ in chosen]
                yield [label * ITEMS + place for label, pair in zip(chosen, places, strict=True) for place in pair]

    loader = torch.utils.data.DataLoader(dataset, batch_sampler=Rows())
    return lambda: list(loader)


def with_easyfsl(package: Any, dataset: Pictures, tasks: int) -> Callable[[], object]:
    """Return the sampling of a meta-batch with easyfsl's sampler and torch's loader."""
    sampler = package.TaskSampler(dataset, n_way=5, n_shot=1, n_query=1, n_tasks=tasks)
    loader = torch.utils.data.DataLoader(dataset, batch_sampler=sampler, collate_fn=sampler.episodic_collate_fn)
    return lambda: list(loader)


def ours(dataset: Pictures, tasks: int) -> Callable[[], Episodes]:
    """Return the sampling of a meta-batch by our few-shot module."""
    names = tuple(str(number) for number in range(CLASSES))
    split = ClassSplit(items=dataset.pictures, sizes=torch.full((CLASSES,), ITEMS), names=names)
    data = ClassData(name="made", splits={"train": split})
    numbers = count()

    def batch() -> Episodes:
        first = next(numbers) * tasks
        return data.episodes("train", range(first, first + tasks), SHAPE, 0)

    return batch


def made_pictures() -> Pictures:
    """Return as many images as Omniglot has for training."""
    generator = torch.Generator().manual_seed(0)
    return Pictures(torch.randint(0, 256, (CLASSES * ITEMS, 1, 28, 28), dtype=torch.uint8, generator=generator))


def moved_bytes(dataset: Pictures, tasks: int) -> int:
    """Return the bytes that a meta-batch has to move: every image read once as bytes, written once as float32."""
    return tasks * SHAPE.way * (SHAPE.shot + SHAPE.query) * dataset.pictures[0].numel() * (1 + 4)
