"""Exported policies beside the agents that they come from: made, loaded from their folder, and played together."""

from __future__ import annotations

import copy
import importlib.util
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.agents import config_class
from metarl.agents import make as make_agent
from metarl.deployment.manifest import exported
from metarl.deployment.writing import write_policy
from metarl.envs import make_worlds
from metarl.envs.families.bandit import Bandit
from metarl.envs.family import Family, State, Terms
from metarl.learning.finetune import GradientLearner
from metarl.seeding import Streams
from metarl.types import MemoryPolicy, MetaAgent, Tasks
from tests.helpers.toys import normal, seeded

CPU = torch.device("cpu")
TYPES = {"float32": torch.float32, "float64": torch.float64}
SMALL: dict[str, dict[str, Any]] = {
    **{name: {"tasks": 2, "episodes": 3, "hidden": (8, 8)} for name in ("maml-trpo", "multitask", "oracle")},
    **{name: {"tasks": 2, "episodes": 3, "hidden": (8, 8), "minibatches": 2} for name in ("teacher", "ppo")},
    "rma": {"tasks": 2, "episodes": 3, "hidden": (8, 8), "minibatches": 2, "student_minibatches": 2},
    "rl2": {"tasks": 4, "episodes": 3, "width": 8, "minibatches": 2},
}


@dataclass(frozen=True, kw_only=True)
class Levers(Bandit):
    """Two levers with two and three positions: an action is two choices."""

    @property
    def choices(self) -> tuple[int, ...]:
        return (2, 3)

    def reward_terms(self, before: State, state: State, action: Tensor, tasks: Tasks) -> Terms:
        return {"pull": (tasks["mean"] * action).sum(1)}


LEVERS = Levers(rewards="gaussian", arms=5, horizon=4, source="this test")


def trained(name: str, family: Family, **options: Any) -> MetaAgent:
    """Return an agent that has met something, and none of whose parameters is special."""
    config = config_class(name)(**SMALL[name] | options)
    agent: Any = make_agent(name, config, family.spec(), Streams(0), CPU)
    agent.train_iteration(make_worlds(family, config.worlds, threads=1), family.space.sample, Streams(0))
    tensors = (
        dict(agent.network.named_parameters())
        if hasattr(agent, "network")
        else getattr(agent, "meta", None) or agent.params
    )
    with torch.no_grad():
        for number, (key, value) in enumerate(tensors.items()):
            if not key.startswith("rate/"):
                value.add_(0.2 * normal(*value.shape, seed=number).to(value))
    return agent


def written(agent: MetaAgent, family: Family, out: Path, *, onnx: bool = False) -> Path:
    write_policy(exported(agent, family, {}), out, onnx=onnx)
    return out


def module(folder: Path) -> Any:
    """Return the folder's own policy.py."""
    spec = importlib.util.spec_from_file_location(f"policy_of_{abs(hash(folder))}", folder / "policy.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found


def runtime(folder: Path, **options: Any) -> Any:
    return module(folder).Policy(folder, **options)


class TorchNoise:
    """The noise that torch's policies draw, in place of NumPy's."""

    def __init__(self, generator: torch.Generator, counts: tuple[int, ...] = ()) -> None:
        self.generator, self.counts = generator, counts

    def standard_normal(self, size: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return torch.randn((1, *size), generator=self.generator, dtype=TYPES[dtype.name]).numpy()[0]

    def standard_exponential(self, size: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        kind = TYPES[dtype.name]
        parts = [torch.empty(1, count, dtype=kind).exponential_(generator=self.generator) for count in self.counts]
        return torch.cat(parts, 1).numpy()[0]


def play_both(policy: Any, acting: Any, family: Family, tasks: Tasks, episodes: int, kind: torch.dtype) -> float:
    """Play a trial with an agent, and show the exported policy the same; return how far their actions are apart.

    Actions are compared as they are drawn, in parts of their size where that is above 1, and as they are done; of
    choices they must be the same. Rewards and ends come to the policy as a user gives them.
    """
    env, starts, noise = make_worlds(family, 1, threads=1), seeded(0), seeded(1)
    policy.generator = TorchNoise(seeded(1), family.choices)
    env.set_tasks(tasks)
    apart, reward, done = 0.0, None, 0
    for _ in range(episodes):
        observation, over = env.reset(starts), False
        if isinstance(acting, MemoryPolicy):
            acting.begin_episode()
        policy.reset()
        while not over:
            action = acting.act(observation.to(kind), noise)
            ours = policy.act(observation[0].numpy(), reward)
            if family.discrete:
                parts = action[0].split(list(family.choices))
                assert np.atleast_1d(ours).tolist() == [int(part.argmax()) for part in parts]
            else:
                drawn = action[0].numpy()
                apart = max(apart, float((np.abs(policy.raw_action - drawn) / np.maximum(1.0, np.abs(drawn))).max()))
                physical = env.actions.in_bounds(action.double())[0].numpy()
                np.testing.assert_allclose(ours, physical, rtol=0.0, atol=1e-5)
            step = env.step(action)
            if isinstance(acting, MemoryPolicy):
                acting.see(step.reward.to(kind), step.terminated | step.truncated)
            observation, reward = step.observation, float(step.reward[0])
            over, done = bool(step.terminated | step.truncated), done + 1
    assert done >= episodes
    return apart


def doubled(learner: Any) -> Any:
    """Return a learner that computes in float64."""
    if not isinstance(learner, GradientLearner):
        agent = copy.deepcopy(learner.policy)
        agent.network.double()
        return replace(learner, policy=agent)
    return replace(learner, params={name: value.double() for name, value in learner.params.items()})


def one_task(family: Family, seed: int = 3) -> Tasks:
    return family.space.sample(1, "train", seeded(seed))


def short(family: Family, steps: int) -> Any:
    """Return a family with fewer steps."""
    return replace(family, horizon=steps)  # pyright: ignore[reportArgumentType]
