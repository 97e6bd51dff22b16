"""Few-shot learners that take gradient steps, small and in float64; classification of noise, regression of lines."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metarl.fewshot.episodes import Episodes, EpisodeShape, Support
from metarl.fewshot.learners.imaml import Imaml, ImamlConfig
from metarl.fewshot.learners.maml import Maml, MamlConfig
from metarl.fewshot.learners.reptile import Reptile, ReptileConfig
from metarl.fewshot.parts.backbones import Backbone, Conv4, MlpBackbone
from metarl.fewshot.parts.learner import Setting
from metarl.fewshot.parts.norms import BatchNorm
from metarl.seeding import Streams
from metarl.types import Params
from tests.helpers.toys import DOUBLE, seeded

CPU = torch.device("cpu")
SHAPE = EpisodeShape(way=3, shot=2, query=2)
IMAGE = (1, 16, 16)


class Noise:
    """Classification of noise: images of a class have nothing in common."""

    name = "noise"
    item_shape = IMAGE
    outputs = 0

    def episodes(self, split: str, numbers: Any, shape: EpisodeShape, seed: int) -> Episodes:
        parts = []
        for size in (shape.shot, shape.query):
            x = [torch.randn(shape.way * size, *IMAGE, generator=seeded(7 * n + size), dtype=DOUBLE) for n in numbers]
            y = torch.arange(shape.way).repeat_interleave(size).expand(len(numbers), -1)
            parts.append((torch.stack(x), y))
        (support_x, support_y), (query_x, query_y) = parts
        support = Support(x=support_x, y=support_y, way=shape.way)
        return Episodes(support=support, query_x=query_x, query_y=query_y)

    def describe(self) -> dict[str, Any]:
        return {}


class Lines:
    """Regression to lines of two inputs, each with its own slopes."""

    name = "lines"
    item_shape = (2,)
    outputs = 1

    def episodes(self, split: str, numbers: Any, shape: EpisodeShape, seed: int) -> Episodes:
        rows = []
        for number in numbers:
            generator = seeded(1000 * seed + 2 * number + (split == "test"))
            slopes = torch.randn(2, 1, generator=generator, dtype=DOUBLE)
            x = torch.randn(shape.shot + shape.query, 2, generator=generator, dtype=DOUBLE)
            rows.append((x, x @ slopes))
        x, y = (torch.stack(column) for column in zip(*rows, strict=True))
        support = Support(x=x[:, : shape.shot], y=y[:, : shape.shot], way=0)
        return Episodes(support=support, query_x=x[:, shape.shot :], query_y=y[:, shape.shot :])

    def describe(self) -> dict[str, Any]:
        return {}


def setting(batch_norm: BatchNorm = "support", backbone: Backbone | None = None, **other: Any) -> Setting:
    backbone = backbone or Conv4(item_shape=IMAGE, width=3)
    return Setting(shape=other.pop("shape", SHAPE), backbone=backbone, batch_norm=batch_norm, dtype=DOUBLE, **other)


def regression(shot: int = 5) -> Setting:
    backbone = MlpBackbone(item_shape=(2,), hidden=(6,), activation="tanh")
    return setting(backbone=backbone, outputs=1, shape=EpisodeShape(shot=shot, query=8))


def shaken(learner: Any) -> Any:
    """Move all parameters, so that none is special: no zero bias, no unit scale."""
    for i, value in enumerate(learner.params.values()):
        with torch.no_grad():
            value.add_(0.05 * torch.randn(value.shape, generator=seeded(i), dtype=DOUBLE))
    return learner


def flat(params: Params) -> Tensor:
    return torch.cat([value.detach().flatten() for value in params.values()])


def maml(batch_norm: BatchNorm = "support", **config: Any) -> Maml:
    config = {"tasks": 3, "inner_steps": 2, "inner_rate": 0.3, **config}
    return shaken(Maml(MamlConfig(**config), setting(batch_norm), Streams(0), CPU))


KINDS: dict[str, dict[str, Any]] = {
    "maml": {},
    "first-order": {"first_order": True},
    "anil": {"adapts": "head"},
    "meta-sgd": {"rates": "parameter"},
    "per-step rates": {"rates": "step"},
    "step norm": {"rates": "step", "step_norm": True},
    "multi-step": {"multi_step_updates": 10},
}
POLICIES: tuple[BatchNorm, ...] = ("support", "transductive", "running")
TRAINED = POLICIES[:2]
"""While training, `running` is `transductive`."""


MAKERS: dict[str, Any] = {
    "maml": lambda kind: Maml(MamlConfig(tasks=4, inner_steps=2, inner_rate=0.2), kind, Streams(0), CPU),
    "meta-sgd": lambda kind: Maml(
        MamlConfig(tasks=4, inner_steps=2, inner_rate=0.1, rates="parameter"), kind, Streams(0), CPU
    ),
    "reptile": lambda kind: Reptile(
        ReptileConfig(tasks=4, inner_rate=0.01, inner_steps=8, test_steps=10, iterations=400), kind, Streams(0), CPU
    ),
    "imaml": lambda kind: Imaml(
        ImamlConfig(tasks=4, inner_steps=10, inner_rate=0.1, strength=0.5), kind, Streams(0), CPU
    ),
}
