"""Agents are trained and evaluated on cuda:1, while cuda:0 is the current device; the GPUs are pretended."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from metarl.agents import config_class, make
from metarl.envs import get, make_worlds
from metarl.envs.engines import in_torch
from metarl.envs.horizon import with_horizon
from metarl.evaluation.curve import adaptation_curve
from metarl.graphs import Recording
from metarl.launches import Launches
from metarl.learning import rollout
from metarl.seeding import Streams
from tests.helpers.gpus import pretended_gpus

CPU, SECOND = torch.device("cpu"), torch.device("cuda", 1)
SMALL: dict[str, dict[str, Any]] = {
    "maml-trpo": {"tasks": 3, "episodes": 2, "hidden": (2,), "learn_rates": True, "cg_iterations": 2},
    "promp": {"tasks": 3, "episodes": 2, "hidden": (2,), "outer_steps": 2},
    "oracle": {"tasks": 3, "episodes": 2, "hidden": (2,), "cg_iterations": 2},
    "pearl": {
        **{"train_tasks": 6, "tasks": 6, "first_rounds": 1, "updates": 2, "meta_batch": 3, "batch": 4, "context": 3},
        **{"hidden": (4,), "encoder_hidden": (4,), "replay_steps": 20},
    },
    "ppo": {"tasks": 3, "episodes": 2, "hidden": (2,), "minibatches": 2},
    "teacher": {"tasks": 3, "episodes": 2, "hidden": (2,), "minibatches": 2},
    "rma": {"tasks": 3, "episodes": 2, "hidden": (2,), "minibatches": 2, "student_minibatches": 2, "rewards": True},
    "rl2": {"tasks": 6, "episodes": 2, "minibatches": 2, "width": 4},
    "dpt": {"tasks": 6, "episodes": 2, "minibatches": 2, "width": 4, "layers": 1},
    "varibad": {
        **{"tasks": 6, "episodes": 2, "minibatches": 2, "width": 4, "hidden": (4,), "belief_updates": 2},
        **{"belief_trials": 4, "buffer": 10, "decoded_moments": 3, "decoded_steps": 3},
    },
}
CASES = [
    ("point-nav", "maml-trpo"),
    ("tabular-mdp", "rl2"),
    ("tabular-mdp", "varibad"),
    ("bandit", "oracle"),
    ("bandit", "promp"),
    ("point-nav", "pearl"),
    ("tabular-mdp", "rma"),
    ("point-nav", "dpt"),
]


class NoGraphs:
    """Captures nothing: what would be launched as one runs as it is, in the places that a launch has."""

    device = SECOND

    def recording(self, generators: Sequence[torch.Generator]) -> Recording:
        assert all(generator.device == SECOND for generator in generators)
        raise RuntimeError("there are no graphs here")


def seeded_anew(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """Return what draws noise, on a CPU seeded as on a GPU."""
    return torch.Generator(device).manual_seed(int(torch.randint(2**63 - 1, (), generator=generator)))


def trained(family_name: str, name: str, device: torch.device) -> tuple[dict[str, float], list[float]]:
    """Return the metrics of an iteration, and the adaptation curve after it."""
    family = get(family_name)
    family = with_horizon(family, min(3, family.horizon))
    agent = make(name, config_class(name)(**SMALL[name]), family.spec(), Streams(0), device)
    worlds = make_worlds(family, 6, engine="gpu" if device == SECOND else "cpu", device=device)
    metrics = agent.train_iteration(worlds, family.space.sample, Streams(0))
    if name == "rma":
        # The teacher had one iteration; the others are its student's.
        agent.iteration = agent.config.by_ppo  # pyright: ignore[reportAttributeAccessIssue]
        metrics = {**metrics, **agent.train_iteration(worlds, family.space.sample, Streams(1))}
    tasks = family.space.sample(3, "test", torch.Generator().manual_seed(0))
    curve = adaptation_curve(agent, worlds, tasks, steps=1, episodes=2, generator=torch.Generator().manual_seed(0))
    return dict(metrics), curve.returns.flatten().tolist()


@pytest.mark.parametrize(("family", "name"), CASES)
def test_agents_train_on_a_second_gpu_as_on_a_cpu(family: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(rollout, "noise_generator", seeded_anew)
        expected, curve = trained(family, name, CPU)
    monkeypatch.setattr(in_torch, "launches_on", lambda device: Launches(NoGraphs()))
    with pretended_gpus(monkeypatch):
        found, there = trained(family, name, SECOND)
    assert set(found) == set(expected)
    for figure, value in expected.items():
        if not figure.startswith(("time/", "speed/")):
            assert found[figure] == pytest.approx(value, rel=1e-4, abs=1e-5), figure
    assert there == pytest.approx(curve, rel=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("family", ["point-nav", "half-cheetah-vel"])
def test_on_two_gpus_what_trains_on_the_second_leaves_the_first(family: str) -> None:
    before = torch.cuda.current_device(), torch.cuda.memory_allocated(0)
    metrics, curve = trained(family, "rl2", SECOND)
    assert all(math.isfinite(value) for value in (*metrics.values(), *curve))
    assert (torch.cuda.current_device(), torch.cuda.memory_allocated(0)) == before
