"""Small data for the tests of few-shot runs: vectors in which some numbers tell the class and others are noise.

With them: untrained learners for these, made-up results, and runs by the command line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metarl.cli.main import main
from metarl.fewshot import Episodes, EpisodeShape, FewShotRun, Source, Support, from_arrays
from metarl.fewshot.classes import ClassData
from metarl.fewshot.episodes import check_split, uniform
from metarl.fewshot.learners import config_class, make
from metarl.fewshot.manifest import Arrays, draw
from metarl.fewshot.manifest import make as make_manifest
from metarl.fewshot.measure import BINS, Measured
from metarl.fewshot.parts.backbones import MlpBackbone
from metarl.fewshot.parts.learner import Setting
from metarl.fewshot.summary import Row, Test
from metarl.seeding import Streams

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


def untrained(name: str, **settings: Any) -> Any:
    """Return an untrained learner for `vectors()`."""
    setting = Setting(shape=SHAPE, backbone=MlpBackbone(item_shape=(12,), hidden=(16,)))
    return make(name, config_class(name)(**settings), setting, Streams(0), torch.device("cpu"))


def row(name: str, *values: torch.Tensor, **settings: Any) -> Row:
    settings = {"batch_norm": "none", "own": True, **settings}
    seeds = tuple(range(len(values)))
    measured = tuple(Measured(values=of) for of in values)
    return Row(learner=name, measured=measured, seeds=seeds, runs=tuple(f"runs/{s}" for s in seeds), **settings)


def made_up() -> tuple[Test, Source]:
    """Accuracies of two learners, the second .1 better on each of 300 episodes but for a little noise."""
    generator = torch.Generator().manual_seed(0)
    data = vectors()
    first = 0.5 + 0.2 * torch.randn(300, generator=generator, dtype=torch.float64)
    second = first + 0.1 + 0.01 * torch.randn(300, generator=generator, dtype=torch.float64)
    bins = torch.zeros(BINS, 3, dtype=torch.float64)
    bins[8] = torch.tensor([10.0, 6.0, 5.0])
    path = torch.stack([first - 0.3, first])
    mine = Measured(values=first, path=path, bins=bins)
    steps = Row(learner="steps", batch_norm="support", own=True, measured=(mine,), seeds=(4,))
    manifest = make_manifest(data, "test", 300, SHAPE, 0)
    return Test(manifest=manifest, file="some.manifest", rows=(steps, row("other", second))), data


# -- by the command line -----------------------------------------------------------------------------------------------


SHORT = ["--query", "3", "--threads", "1", "--validation", "5", "--test-episodes", "20"]


def pictures(folder: Path, classes: int = 20, side: int = 16) -> Path:
    """Write pictures of noise, 10 of each class."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    np.save(folder / "items.npy", generator.integers(0, 255, (10 * classes, 1, side, side), dtype=np.uint8))
    np.save(folder / "classes.npy", np.repeat(np.arange(classes), 10))
    return folder


def train_by_command(root: Path, folder: Path, learner: str = "proto", *more: str) -> Path:
    size = ["--tasks", "2", "--iterations", "4", "--checkpoint-every", "2"]
    data = ["--data", "arrays", "--data-root", str(root)]
    assert main(["fewshot", "train", learner, *data, *SHORT, *size, "--out", str(folder), *more]) == 0
    return folder


def evaluate_by_command(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["fewshot", "evaluate", *arguments, "--threads", "1", "--json"]) == 0
    return json.loads(capsys.readouterr().out)
