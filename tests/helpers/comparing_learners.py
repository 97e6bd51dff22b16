"""Few-shot learners that compare features or begin with a classifier, small; support sets of noise, noisy images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metarl.fewshot.classes import ClassData, ClassSplit
from metarl.fewshot.episodes import EpisodeShape, Support
from metarl.fewshot.learners import config_class, make
from metarl.fewshot.parts.backbones import Backbone, Conv4, MlpBackbone
from metarl.fewshot.parts.learner import FewShotLearner, Setting
from metarl.fewshot.parts.norms import BatchNorm
from metarl.seeding import Streams
from tests.helpers.toys import DOUBLE, normal, seeded

CPU = torch.device("cpu")
IMAGE = (1, 16, 16)
CLASSES = 30
SHAPE = EpisodeShape(way=5, shot=1, query=3)

KINDS: dict[str, dict[str, Any]] = {
    "proto": {},
    "matching": {},
    "matching full_context": {"full_context": True, "steps": 2},
    "siamese": {},
    "siamese l1": {"distance": "l1"},
    "relation": {},
    "r2d2": {},
    "logistic": {},
    "baseline": {},
    "baseline++": {},
    "simpleshot": {},
}
"""Learners, with settings behind a space where a learner is here twice."""
EPISODIC = [kind for kind in KINDS if kind.split()[0] not in ("baseline", "baseline++", "simpleshot")]
CLASSIFIERS = [kind for kind in KINDS if kind not in EPISODIC]


def made(kind: str, setting: Setting, **options: Any) -> Any:
    name = kind.split()[0]
    return make(name, config_class(name)(**KINDS[kind], **options), setting, Streams(0), CPU)


def images(dtype: torch.dtype = DOUBLE, **settings: Any) -> Setting:
    """Return a setting with a small network that has norms."""
    backbone = Conv4(item_shape=IMAGE, width=4)
    return Setting(**{"shape": SHAPE, "backbone": backbone, "classes": CLASSES, "dtype": dtype, **settings})


def noise(tasks: int, size: int, seed: int = 0) -> Tensor:
    return normal(tasks, size, *IMAGE, seed=seed)


def support_of(y: list[int], way: int, tasks: int = 2, seed: int = 0) -> Support:
    """Return support sets of noise, all with the same labels."""
    return Support(x=noise(tasks, len(y), seed), y=torch.tensor(y).expand(tasks, -1), way=way)


def scores_of(learner: FewShotLearner, support: Support, x: Tensor, policy: BatchNorm | None = None) -> Tensor:
    return learner.fit(support, policy).predict(x)


def near(first: Tensor, second: Tensor, close: float = 1e-9) -> None:
    torch.testing.assert_close(first, second, rtol=0.0, atol=close)


def shapes() -> ClassData:
    """Return noisy images of classes."""
    shape, generator = (CLASSES, 6, *IMAGE), seeded(8)
    items = torch.randn(CLASSES, 1, *IMAGE, generator=generator) + 0.5 * torch.randn(shape, generator=generator)
    names = tuple(f"class {n}" for n in range(CLASSES))
    split = ClassSplit(items=items.flatten(0, 1), sizes=torch.full((CLASSES,), 6), names=names)
    return ClassData(name="shapes", splits={"train": split})


def plain_backbone() -> Backbone:
    return MlpBackbone(item_shape=IMAGE, hidden=(6,))
