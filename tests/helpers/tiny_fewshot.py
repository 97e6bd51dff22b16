"""Small data for the tests of few-shot runs: vectors in which some numbers tell the class and others are noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metarl.fewshot import Episodes, EpisodeShape, FewShotRun, Support, from_arrays
from metarl.fewshot.classes import ClassData
from metarl.fewshot.episodes import check_split, uniform
from metarl.fewshot.manifest import Arrays, draw

CLASSES, ITEMS, SIGNAL, NOISE = 40, 12, 6, 6
SHAPE = EpisodeShape(way=5, shot=1, query=3)
RUN = FewShotRun(data="vectors", learner="proto", way=5, shot=1, query=3, threads=1, hidden=(16,), validation=20)


def arrays(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return items [480, 12] and their classes."""
    generator = np.random.default_rng(seed)
    signal = np.repeat(generator.standard_normal((CLASSES, SIGNAL)), ITEMS, 0)
    signal = signal + 0.3 * generator.standard_normal(signal.shape)
    noise = 3.0 * generator.standard_normal((len(signal), NOISE))
    return np.concatenate([signal, noise], 1).astype(np.float32), np.repeat(np.arange(CLASSES), ITEMS)


def vectors(seed: int = 0, name: str = "vectors") -> ClassData:
    return from_arrays(*arrays(seed), name=name)


def store(folder: Path, seed: int = 0) -> Path:
    """Write the same data for `--data arrays --data-root FOLDER`."""
    folder.mkdir()
    items, classes = arrays(seed)
    np.save(folder / "items.npy", items)
    np.save(folder / "classes.npy", classes)
    return folder


class Lines:
    """Regression of straight lines y = a x, a source without classes."""

    name = "lines"
    item_shape = (1,)
    outputs = 1

    def episodes(self, split: str, numbers: Sequence[int], shape: EpisodeShape, seed: int) -> Episodes:
        check_split(split)
        count = shape.shot + shape.query
        drawn = (2.0 * uniform(numbers, count + 1, seed, split) - 1.0).float()
        x = drawn[:, 1:, None]
        y = 2.0 * drawn[:, :1, None] * x
        support = Support(x=x[:, : shape.shot], y=y[:, : shape.shot], way=0)
        return Episodes(support=support, query_x=x[:, shape.shot :], query_y=y[:, shape.shot :])

    def describe(self) -> Mapping[str, Any]:
        return {"name": self.name, "fingerprint": "lines-1"}


def share(numbers: Sequence[int], seed: int) -> Arrays:
    """Draw some test episodes, as one of several workers."""
    torch.set_num_threads(1)
    return draw(vectors(), "test", numbers, SHAPE, seed)
