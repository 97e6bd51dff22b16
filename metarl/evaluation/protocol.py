"""Meta-World's protocol: episodes to adapt, then a few for the score, with every episode counted.

Every task is met afresh: the agent plays `ADAPTING` episodes of it, learns from them, and then plays `SCORED` more,
which are all that counts. One that pools (MAML) learns once, from its parallel episodes together; one that has a
memory in each world plays as many trials side by side as there are episodes for the score, and the last of each
counts. An episode is solved where its goal is met at any step. Success is told by class (of a choice among the task's
parameters), and in all as the mean over classes, which have as many tasks each.

The loop of Meta-World's own package counts otherwise (`metalearning_evaluation` of metaworld/evaluation.py, 3.1.1):
the environments of a class run side by side, a solved episode ends at once and its environment plays the next one,
and of a class the first `SCORED` episodes to end are all that is counted. Those that end soon are those that succeed:
of four goals of which one is solved, in 50 steps, it says 100% where the truth is 25%. `package_success` says what it
would have printed for the same episodes, since papers report such numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.errors import UserError
from metarl.evaluation.statistics import bootstrap_interval, mean
from metarl.learning.rollout import collect
from metarl.types import BatchEnv, MetaAgent, Step, Tasks

ADAPTING, SCORED = 10, 3
"""Episodes of a task, before the score and for it."""
GOALS = 40
"""Tasks of each class of the test split."""
META_BATCH = 20
"""Environments that the package's loop runs side by side, shared out evenly among the classes."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What the episodes for the score were, E of each of M tasks."""

    returns: Float[Tensor, "M E"]
    """Undiscounted return of all steps, float64."""
    solved_at: Int[Tensor, "M E"]
    """Step at which the goal was first met, from 1; 0 where it never was."""
    horizon: int
    """T."""

    @property
    def success(self) -> Bool[Tensor, "M E"]:
        """Whether the goal was met at any step."""
        return self.solved_at > 0


class Noting:
    """Worlds that note at which step each first meets its goal; all else is as in the worlds themselves.

    Args:
        env: the worlds.
    """

    def __init__(self, env: BatchEnv) -> None:
        self._env = env
        self.solved_at = torch.zeros(env.num_worlds, dtype=torch.long)
        self._steps = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def reset(self, generator: torch.Generator) -> Float[Tensor, "B O"]:
        """Start new episodes."""
        self._steps = 0
        self.solved_at = torch.zeros(self._env.num_worlds, dtype=torch.long)
        return self._env.reset(generator)

    def step(self, action: Float[Tensor, "B A"]) -> Step:
        """Take a step."""
        step = self._env.step(action)
        if step.success is None:
            raise UserError(f"{self._env.family_name} has no goal that is met or not: the protocol is about success")
        self._steps += 1
        first = step.success.cpu() & (self.solved_at == 0)
        self.solved_at[first] = self._steps
        return step


def score(
    agent: MetaAgent,
    make: Callable[[int], BatchEnv],
    tasks: Tasks,
    generator: torch.Generator,
    *,
    adapting: int = ADAPTING,
    scored: int = SCORED,
) -> Scores:
    """Adapt an agent to tasks by the protocol, all in parallel, and return the episodes that count.

    Args:
        agent: a trained agent; it is not changed.
        make: gives so many worlds.
        tasks: M tasks.
        generator: draws starts and policy noise.
        adapting: episodes before the score.
        scored: episodes for it, E.

    Raises:
        UserError: the family has no success.
    """
    learner = agent.start(tasks)
    # A BatchEnv by what it passes on.
    worlds: Any
    if agent.pools:
        learner = learner.learn(collect(make(len(tasks) * adapting), learner.policy, tasks, adapting, generator))
        worlds = Noting(make(len(tasks) * scored))
        played = collect(worlds, learner.policy, tasks, scored, generator, watch=True)
    else:
        worlds = Noting(make(len(tasks) * scored))
        for episode in range(adapting):
            experience = collect(worlds, learner.policy, tasks, scored, generator, new_trial=episode == 0, watch=True)
            learner = learner.learn(experience)
        played = collect(worlds, learner.policy, tasks, scored, generator, new_trial=False, watch=True)
    return Scores(
        returns=played.returns.double().cpu(),
        solved_at=worlds.solved_at.reshape(len(tasks), scored),
        horizon=worlds.horizon,
    )


def package_success(scores: Scores, classes: Sequence[str]) -> dict[str, float]:
    """Return the success of every class as the loop of Meta-World's package would have counted the same episodes.

    Args:
        scores: the episodes.
        classes: of every task.
    """
    names = list(dict.fromkeys(classes))
    side_by_side = max(1, META_BATCH // len(names))
    found = {}
    for name in names:
        tasks = [number for number, its in enumerate(classes) if its == name]
        groups = [tasks[first : first + side_by_side] for first in range(0, len(tasks), side_by_side)]
        found[name] = sum(_first_to_end(scores, group) for group in groups) / len(groups)
    return found


def _first_to_end(scores: Scores, tasks: Sequence[int]) -> float:
    """Return the part of successes among the first episodes to end where tasks are played side by side."""
    ends: list[tuple[int, int, bool]] = []
    for place, task in enumerate(tasks):
        time = 0
        for solved_at in scores.solved_at[task].tolist():
            time += solved_at or scores.horizon
            ends.append((time, place, solved_at > 0))
    counted = sorted(ends)[: scores.solved_at.shape[1]]
    return sum(solved for _, _, solved in counted) / len(counted)


def describe(all_scores: Sequence[Scores], classes: Sequence[str], generator: torch.Generator) -> dict[str, Any]:
    """Return what the protocol says of the training seeds of an agent, as plain data.

    Args:
        all_scores: of every training seed, on the same tasks.
        classes: of every task.
        generator: of the bootstrap.
    """
    success = torch.stack([scores.success.double().mean(1) for scores in all_scores])
    package = [package_success(scores, classes) for scores in all_scores]
    by_class = []
    for name in dict.fromkeys(classes):
        rows = torch.tensor([its == name for its in classes])
        found = bootstrap_interval(success[:, rows], mean, generator)
        by_class.append(
            {
                "class": name,
                "tasks": int(rows.sum()),
                "success": found.estimate,
                "success_lower": found.lower,
                "success_upper": found.upper,
                "package_success": sum(one[name] for one in package) / len(package),
                "return": float(torch.stack([scores.returns[rows].mean() for scores in all_scores]).mean()),
            }
        )
    whole = bootstrap_interval(success, mean, generator)
    return {
        "success": whole.estimate,
        "success_lower": whole.lower,
        "success_upper": whole.upper,
        "package_success": sum(row["package_success"] for row in by_class) / len(by_class),
        "classes": by_class,
    }
