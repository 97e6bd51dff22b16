"""What an update asks of a GPU: as many tasks at a time as its memory holds, and few looks of the host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from metarl.agents.maml_trpo import MamlTrpo, MamlTrpoConfig
from metarl.agents.multitask import Multitask, MultitaskConfig
from metarl.agents.promp import Promp, PrompConfig
from metarl.envs.families.point_nav import PointNav
from metarl.envs.making import make_worlds
from metarl.errors import UserError
from metarl.learning import chunks, trust_region
from metarl.learning.experience import Batch
from metarl.seeding import Streams
from metarl.types import Metrics, Params
from tests.helpers.looks import Looks

POINT = PointNav(variant="short", horizon=6)
SMALL = MamlTrpoConfig(tasks=4, episodes=2, hidden=(4,), inner_rate=0.5, cg_iterations=3, fisher_fraction=0.5)
PLAIN = MultitaskConfig(tasks=4, episodes=2, hidden=(4,), cg_iterations=3, fisher_fraction=0.5)
CPU = torch.device("cpu")


def maml(config: MamlTrpoConfig, device: torch.device = CPU) -> MamlTrpo:
    return MamlTrpo(config, POINT.spec(), Streams(0), device)


def multitask(config: MultitaskConfig, device: torch.device = CPU) -> Multitask:
    return Multitask(config, POINT.spec(), Streams(0), device, name="multitask")


def train(agent: MamlTrpo | Multitask) -> Metrics:
    env = make_worlds(POINT, agent.config.worlds)
    return agent.train_iteration(env, POINT.space.sample, Streams(0))


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let memory decide how many tasks are computed at a time; return a list to which every decision is added."""
    decided: list[int] = []
    monkeypatch.setattr(chunks, "steps_decide", lambda batch: False)
    monkeypatch.setattr(chunks, "memory_of", lambda device: 2**30)
    found = chunks.TasksAtATime.__call__

    def watched(self: chunks.TasksAtATime, batch: Batch, params: Params, objective: chunks.Objective) -> int:
        decided.append(found(self, batch, params, objective))
        return decided[-1]

    monkeypatch.setattr(chunks.TasksAtATime, "__call__", watched)
    return decided


@pytest.mark.parametrize(
    "options",
    [{}, {"inner_steps": 2, "learn_rates": True}, {"first_order": True}, {"inner_steps": 0}, {"executor": "vmap"}],
)
def test_all_tasks_are_computed_at_once_where_memory_holds_them(
    options: dict[str, Any], as_on_a_gpu: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, alone = (maml(replace(SMALL, **options)) for _ in range(2))
    train(whole)
    assert set(as_on_a_gpu) == {4}
    assert all(100 < each < 100_000 for each in whole.at_a_time._each.values())
    as_on_a_gpu.clear()
    # A budget below what one task keeps: each is computed by itself.
    monkeypatch.setattr(chunks, "memory_of", lambda device: 100)
    train(alone)
    assert set(as_on_a_gpu) == {1}
    for name, value in whole.meta.items():
        torch.testing.assert_close(alone.meta[name], value, rtol=0.0, atol=1e-4)


def test_a_policy_for_all_tasks_is_updated_at_once_too(as_on_a_gpu: list[int]) -> None:
    train(multitask(PLAIN))
    assert as_on_a_gpu == [4]


@pytest.mark.parametrize(
    "agent", [maml(SMALL), multitask(PLAIN), Promp(PrompConfig(hidden=(4,)), POINT.spec(), Streams(0), CPU)]
)
def test_at_test_a_gpu_adapts_all_tasks_at_once(agent: MamlTrpo | Multitask | Promp) -> None:
    tasks = POINT.space.sample(3, "test", torch.Generator())
    assert agent.start(tasks).chunk == 4
    agent.device = torch.device("cuda")
    assert agent.start(tasks).chunk == 0


@pytest.mark.parametrize("config", [SMALL, PLAIN])
def test_a_gpu_has_no_use_for_steps_at_a_time_and_a_cpu_none_for_a_budget(config: Any) -> None:
    needs = [config.unused("multitask", POINT.spec(), device) for device in (CPU, torch.device("cuda", 1))]
    assert [found.get("gpu_memory") for found in needs] == ["--device cuda", None]
    assert [found.get("chunk_steps") for found in needs] == [None, "--device cpu"]


def test_a_negative_budget_is_refused() -> None:
    for config in (MamlTrpoConfig, MultitaskConfig):
        with pytest.raises(UserError, match=r"--gpu-memory -1.* at least 0"):
            config(gpu_memory=-1)


def test_an_update_takes_few_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, update = maml(SMALL), MamlTrpo._update
    products = trust_region.conjugate_gradient

    def watched(agent: MamlTrpo, points: list[Params], batches: list[Batch]) -> Metrics:
        with Looks() as looks:
            metrics = update(agent, points, batches)
        seen.extend(looks.seen)
        return metrics

    seen: list[str] = []
    monkeypatch.setattr(trust_region, "conjugate_gradient", partial(products, watch=False))
    monkeypatch.setattr(MamlTrpo, "_update", watched)
    tried = train(agent)["update/line_search_steps"]
    # The surrogate before; the curvature along the step; surrogate and divergence of each candidate; two figures.
    assert seen == ["__float__", "tolist", *["tolist"] * int(tried), "tolist", "tolist"]


@pytest.mark.gpu
@pytest.mark.parametrize("make", [lambda device: maml(SMALL, device), lambda device: multitask(PLAIN, device)])
def test_on_a_gpu_the_update_is_that_of_a_cpu(make: Callable[[torch.device], MamlTrpo | Multitask]) -> None:
    found = train(make(torch.device("cuda", 0)))
    for name, value in train(make(CPU)).items():
        if not name.startswith(("time/", "speed/")):
            assert found[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
