"""Few-shot learners are trained and tested on cuda:1, while cuda:0 is the current device; the GPUs are pretended."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from metarl.fewshot.learners import config_class, make, maml
from metarl.seeding import Streams
from tests.helpers.gpus import pretended_gpus
from tests.helpers.stepping_learners import SHAPE, Noise, setting

CPU, SECOND = torch.device("cpu"), torch.device("cuda", 1)
CASES: list[Any] = [
    ("maml", {"inner_steps": 1, "executor": "grouped", "tasks": 2}),
    ("maml", {"inner_steps": 1, "executor": "vmap", "tasks": 2}),
    pytest.param("reptile", {"inner_steps": 1, "tasks": 2}, marks=pytest.mark.slow),
    ("imaml", {"inner_steps": 1, "tasks": 2}),
    ("proto", {"tasks": 2}),
    ("r2d2", {"tasks": 2}),
]


def trained(name: str, options: dict[str, Any], device: torch.device) -> tuple[dict[str, float], list[float]]:
    """Return the metrics of an update, and what is then found in new episodes."""
    learner = make(name, config_class(name)(**options), setting(), Streams(0), device)
    metrics = learner.update(Noise(), 0)
    episodes = Noise().episodes("test", range(2), SHAPE, 0).to(device)
    return dict(metrics), learner.fit(episodes.support).predict(episodes.query_x).flatten().tolist()


@pytest.mark.parametrize(("name", "options"), CASES)
def test_learners_train_on_a_second_gpu_as_on_a_cpu(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, scores = trained(name, options, CPU)
    monkeypatch.setattr(maml, "launches_on", lambda device: None)
    with pretended_gpus(monkeypatch):
        found, there = trained(name, options, SECOND)
    assert found == pytest.approx(expected, rel=1e-6)
    assert there == pytest.approx(scores, rel=1e-6, abs=1e-9)
