"""Evaluation: one protocol for every agent, on one axis, the episodes of experience with a new task.

Every task is met afresh. At each point of the curve K episodes of every task are played in parallel, their mean return
is the task's score there, and the same episodes are what the agent learns from before the next point: the point at n
episodes says how well the agent does after having learned from n episodes. An agent that pools (MAML) learns from the K
episodes together, so that its points are at 0, K, 2K, ...; for one that has a memory in each world (RL2) they belong to
K trials, which are averaged: its points are at 0, 1, 2, ... All tasks are adapted in parallel.

The gain of a point is what adaptation brought: its return less that of the first point, task by task.

All agents meet the same tasks and, as far as their actions allow, the same starts. Intervals are 95% bootstrap
intervals over tasks (within every training seed where there are several; see metarl/evaluation/statistics.py), and

    gap closed = (agent - floor@0) / (oracle - floor@0)

is drawn with the same tasks for all three. The floor is an untrained policy, where no other one is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.errors import UserError
from metarl.learning.rollout import collect
from metarl.types import BatchEnv, MetaAgent, Tasks, Trajectories

STEPS = 3
"""Adaptation steps at test of an agent that pools."""
TRIALS, MOST_TRIALS = 400, 10
"""Parallel trials of all tasks together, and most of one task, where no agent says how many episodes it learns from."""

REFERENCES = ("oracle", "floor", "random")
"""What agents are compared with, by the names that an evaluation has for them."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """How one trained agent adapts to M tasks, at X = steps + 1 points."""

    parallel: int
    """Episodes of each task played at every point, K."""
    pools: bool
    """Whether the agent learns from the K episodes together; if not, each belongs to a trial of its own."""
    episodes: tuple[int, ...]
    """Episodes of experience with each task before every point: 0, K, 2K, ..., or of each trial: 0, 1, 2, ..."""
    returns: Float[Tensor, "X M"]
    """Undiscounted return, mean over the K episodes of the point, float64."""
    tasks: Tasks
    """The tasks."""
    failures: int
    """Simulations that became invalid; each ended its own episode only."""
    success: Float[Tensor, "X M"] | None = None
    """Part of the K episodes that met the task's goal at any step; None where the family has no such goal."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of an evaluation: an agent, with a curve for every training seed."""

    agent: str
    """Name."""
    curves: tuple[Curve, ...]
    """At least one, all on the same tasks."""
    runs: tuple[str, ...]
    """Where each was trained; empty for an untrained agent."""
    seeds: tuple[int, ...]
    """Seed that each was trained with."""

    @property
    def pools(self) -> bool:
        """Whether the agent learns from the parallel episodes together."""
        return self.curves[0].pools

    @property
    def episodes(self) -> tuple[int, ...]:
        """Episodes of experience before every point."""
        return self.curves[0].episodes

    @property
    def returns(self) -> Float[Tensor, "X S M"]:
        """Returns of all S training seeds."""
        return torch.stack([curve.returns for curve in self.curves], dim=1)

    @property
    def success(self) -> Float[Tensor, "X S M"] | None:
        """Success rates of all S training seeds, or None where the family has no such goal."""
        rates = [curve.success for curve in self.curves if curve.success is not None]
        return torch.stack(rates, dim=1) if rates else None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything that one evaluation measured."""

    family: str
    """Full family name."""
    split: str
    """Where the tasks are from: train, test or ood."""
    seed: int
    """Seed of tasks, starts, policy noise and bootstrap."""
    entries: tuple[Entry, ...]
    """The agent itself first, then those it is compared with."""
    oracle: Entry | None = None
    """A policy that is told the task; only its first point counts."""
    oracle_training: str | None = None
    """Whether that was trained to its plateau, in some words."""
    floor: Entry | None = None
    """A policy that is trained and told nothing, which the gap closed is measured from; only its first point counts."""
    floor_agent: str | None = None
    """What trained that."""
    random: Entry | None = None
    """An untrained policy, which takes the place of the floor where there is none; only its first point counts."""
    coincide: bool = False
    """Whether the family has too few tasks to hold any out: its test tasks are its training tasks."""

    def __post_init__(self) -> None:
        known = self.entries[0].curves[0].tasks.records()
        for entry in self.everyone:
            if any(curve.tasks.records() != known for curve in entry.curves):
                raise ValueError(f"Got other tasks for {entry.agent}; evaluate all agents on the same tasks.")

    @property
    def references(self) -> dict[str, Entry]:
        """Those of `REFERENCES` that there are, by name."""
        found = {name: getattr(self, name) for name in REFERENCES}
        return {name: entry for name, entry in found.items() if entry is not None}

    @property
    def everyone(self) -> tuple[Entry, ...]:
        """All entries, the references last."""
        return (*self.entries, *self.references.values())

    @property
    def gap(self) -> tuple[Float[Tensor, "_S M"], Float[Tensor, "_S M"]] | None:
        """Returns of floor and oracle, between which the gap closed is measured; None where one of them is missing."""
        floor = self.random if self.floor is None else self.floor
        return None if floor is None or self.oracle is None else (floor.returns[0], self.oracle.returns[0])


def steps_at_test(agent: MetaAgent) -> int:
    """Return how often an agent learns at test, where no number is given."""
    return STEPS if agent.pools else agent.trial - 1


def parallel_episodes(agents: Sequence[MetaAgent], tasks: int) -> int:
    """Return the number of parallel episodes of each task, K, where none is given.

    Args:
        agents: that meet the tasks; the first one that pools says how many it learns from.
        tasks: M.
    """
    pooling = [agent.config.episodes for agent in agents if agent.pools]
    return pooling[0] if pooling else min(MOST_TRIALS, max(1, TRIALS // max(1, tasks)))


def adaptation_curve(
    agent: MetaAgent,
    env: BatchEnv,
    tasks: Tasks,
    *,
    steps: int,
    episodes: int,
    generator: torch.Generator,
    keep: Callable[[Trajectories, int], None] | None = None,
) -> Curve:
    """Adapt an agent to new tasks, all in parallel, and measure it on the way.

    Where the agent does not pool, the episodes of a world follow one another in one trial.

    Args:
        agent: a trained agent; it is not changed.
        env: M * `episodes` worlds.
        tasks: M tasks.
        steps: adaptation steps, for an agent that does not pool: episodes; the curve has one point more.
        episodes: K, episodes of each task at every point.
        generator: draws starts and policy noise.
        keep: is given the episodes of every point, and how many episodes of experience were before it.

    Raises:
        UserError: if there are no episodes, or fewer than 0 steps.
    """
    if steps < 0 or episodes < 1:
        raise UserError(f"Got {steps} steps of {episodes} episodes. Ask for 0 or more steps of 1 or more episodes.")
    failures = env.failures
    learner = agent.start(tasks)
    returns, success = [], []
    for step in range(steps + 1):
        new_trial = agent.pools or step == 0
        experience = collect(env, learner.policy, tasks, episodes, generator, new_trial=new_trial)
        if keep is not None:
            keep(experience, step * (episodes if agent.pools else 1))
        returns.append(experience.returns.double().mean(1).cpu())
        if experience.success is not None:
            success.append(experience.success.double().mean(1).cpu())
        if step < steps:
            learner = learner.learn(experience)
    return Curve(
        parallel=episodes,
        pools=agent.pools,
        episodes=tuple(step * (episodes if agent.pools else 1) for step in range(steps + 1)),
        returns=torch.stack(returns),
        tasks=tasks,
        failures=env.failures - failures,
        success=torch.stack(success) if success else None,
    )
