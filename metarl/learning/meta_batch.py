"""What an iteration of gradient-based meta-learning plays: episodes before adaptation, and after every step of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from metarl.learning import figures
from metarl.learning.experience import Batch, StochasticPolicy, prepare
from metarl.learning.finetune import GradientAgent, TaskPolicy, memory_of_gradients, warm_up
from metarl.learning.inner import Loss, Rates, adapt, over_tasks
from metarl.learning.rollout import collect
from metarl.learning.scaling import shown
from metarl.nets.policy import stack
from metarl.seeding import Streams
from metarl.types import BatchEnv, EnvSpec, Metrics, Params, SampleTasks, Trajectories

MOST_INNER_STEPS = 1000
"""Adaptation steps in training: each plays all episodes anew."""


class MetaLearner(GradientAgent, Protocol):
    """An agent that adapts in training too.

    Attributes:
        config: has `tasks`, `episodes`, `inner_steps`, `discount`, `trace` and `executor`.
        policy: the network.
        loss: of an adaptation step.
        device: where steps are computed.
        tasks: M, this rank's share of a meta-batch.
    """

    policy: StochasticPolicy
    loss: Loss
    device: torch.device
    tasks: int


@dataclass(frozen=True, kw_only=True)
class MetaBatch:
    """M tasks, played by θ_0 and by what each of n adaptation steps made of it.

    Attributes:
        points: θ_0 ... θ_n of every task, each with leading axis M.
        batches: what each of them played, made ready for a loss.
        played: the same as it was played.
        warm: what was played before, in the first iteration, for the scale of observations alone.
        explained: part of the variance of the last returns that the baseline explains.
        seconds: that the adaptation took, without the playing.
    """

    points: list[Params]
    batches: list[Batch]
    played: list[Trajectories]
    warm: list[Trajectories]
    explained: float
    seconds: float

    def figures(self) -> Metrics:
        """Return what is logged of it."""
        return {
            **figures.of_returns(self.played[0], self.played[-1]),
            "update/explained_variance": self.explained,
            **figures.of_episodes([*self.warm, *self.played]),
            "time/adapt": self.seconds,
        }


def memory_of_meta_batches(config: Any, spec: EnvSpec) -> dict[str, int]:
    """Reckon what a training needs beside the worlds, bytes: what asks for it -> how much.

    Args:
        config: the agent's, with `inner_steps` and the fields of a policy.
        spec: the family's sizes.
    """
    collections = config.inner_steps + 1
    played = config.worlds * spec.horizon * (collections + 2) // 4
    return memory_of_gradients(config, spec, collections=collections, played=played)


def play_meta_batch(
    agent: MetaLearner,
    theta: Params,
    rates: Rates,
    tasks_at_a_time: Callable[[Batch], int],
    env: BatchEnv,
    sample_tasks: SampleTasks,
    streams: Streams,
) -> MetaBatch:
    """Play K episodes of every task before adaptation, and K after every step of it.

    Args:
        agent: whose iteration it is.
        theta: its parameters, shared by all tasks.
        rates: α of every parameter.
        tasks_at_a_time: how many tasks of a batch are adapted at a time.
        env: its worlds.
        sample_tasks: draws the tasks.
        streams: `tasks` draws them, `rollout` starts and actions, `warm-up` what is played in the first iteration.
    """
    config: Any = agent.config
    tasks = sample_tasks(config.tasks, "train", streams["tasks"]).select(agent.ranks.rows(config.tasks))
    params = stack(theta, agent.tasks)
    warm = warm_up(agent, env, sample_tasks, streams["warm-up"])
    scale = agent.scaler.scale
    points, batches, played, explained, seconds = [params], [], [], 0.0, 0.0
    for step in range(config.inner_steps + 1):
        actor = TaskPolicy(agent.policy, params, agent.tasks, ranks=agent.ranks, scale=scale)
        episodes = collect(env, actor, tasks, config.episodes, streams["rollout"], ranks=agent.ranks).to(agent.device)
        started = time.perf_counter()
        batch, explained = prepare(
            shown(scale, episodes), agent.policy, params, discount=config.discount, trace=config.trace
        )
        if step < config.inner_steps:
            with torch.no_grad():
                params = over_tasks(
                    lambda p, b: adapt(agent.loss, p, b, rates, first_order=True),
                    params,
                    batch,
                    executor=config.executor,
                    chunk=tasks_at_a_time(batch),
                )
            points.append(params)
        seconds += time.perf_counter() - started
        batches.append(batch)
        played.append(episodes)
    return MetaBatch(points=points, batches=batches, played=played, warm=warm, explained=explained, seconds=seconds)
