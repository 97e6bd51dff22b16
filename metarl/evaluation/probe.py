"""What a memory knows: a linear probe of it, and a swap of memories between tasks.

**Probe.** An agent with a memory plays trials of n episodes, n as in its training, and is frozen after each of them at
the first observation of the next episode, when its memory has taken in the last reward of the one before. (Not at the
last observation of an episode: that may tell the task by itself, as where a point stands on the goal that it found.)
From what the memory gives there, ridge regression predicts the task parameters, scaled as for an oracle, or the
alternatives of a choice one-hot, of which the largest is the answer. It is fitted to training tasks, with the penalty
whose exact leave-one-out error is smallest there, and scored on other tasks:

    R2 = 1 - Σ(y - ŷ)² / Σ(y - ȳ)²      or, of a choice, accuracy; chance is what the best constant answer has

0 episodes of experience are the reference: what the observation alone tells. Where an agent forgets an episode when it
ends (rma), what it knew at that end is looked at.

**Swap.** Before the last episode of the trials every world gets the memory of a world with another task, or none. If
behaviour follows memory, the return falls, although starts and chance are the same.

Several training seeds of one agent meet the same tasks; figures are means over them. Intervals are 95% bootstrap
intervals over tasks (see metarl/evaluation/statistics.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.errors import UserError
from metarl.evaluation.remembering import Remembering, begin, in_turn
from metarl.evaluation.statistics import Interval, bootstrap_interval, mean, r_squared
from metarl.evaluation.swap import compare, last_episodes_in_turn
from metarl.learning.rollout import collect
from metarl.seeding import Streams
from metarl.space.parameter import Parameter
from metarl.space.parameter_space import ParameterSpace
from metarl.types import BatchEnv, MetaAgent, Tasks

FIT_SHARE = 2
"""Training tasks that a probe is fitted to, for each task that it is scored on."""
FEWEST_TASKS, MOST_TASKS = 10, 10_000
"""Tasks to score on, at least and at most."""
MOST_WORLDS = 256
"""Worlds that play at a time."""
MOST_COMPONENTS = 6
"""Vectors with more components have one score, the mean over them."""
PENALTIES = tuple(10.0 ** (power / 2) for power in range(-8, 9))
"""Ridge penalties to choose from, as parts of the number of tasks; features have variance 1."""


def probe_tasks(space: ParameterSpace, split: str, count: int, streams: Streams) -> tuple[Tasks, Tasks]:
    """Draw the training tasks that a probe is fitted to, and the tasks that it is scored on.

    A fixed set of tasks is used once at most: a task is no more evidence for being counted twice.

    Args:
        space: of the family.
        split: of the tasks to score on.
        count: how many of these.
        streams: `probe-tasks` draws them.

    Raises:
        UserError: too few tasks, or too many.
    """
    if not FEWEST_TASKS <= count <= MOST_TASKS:
        raise UserError(f"Got --probe-tasks {count}. Allowed: from {FEWEST_TASKS} to {MOST_TASKS}.")
    fit = FIT_SHARE * count
    if space.fixed is not None:
        fit = min(fit, space.fixed.train)
        if split != "ood":
            count = min(count, space.fixed.train if split == "train" else space.fixed.test)
    generator = streams["probe-tasks"]
    return space.sample(fit, "train", generator), space.sample(count, split, generator)


def probe(
    agents: Sequence[MetaAgent],
    env: BatchEnv,
    space: ParameterSpace,
    fit: Tasks,
    tasks: Tasks,
    seed: int,
    *,
    discrete: bool,
) -> dict[str, Any]:
    """Probe and swap the memory of a trained agent, and return the result as plain data.

    Args:
        agents: one agent with a memory, of S training seeds; they are not changed.
        env: any number of worlds, which play the tasks in turn.
        space: of the family.
        fit: training tasks, N.
        tasks: tasks to score on, M.
        seed: of starts, policy noise and bootstrap.
        discrete: whether actions are one-hot.

    Raises:
        UserError: the agent has no memory, or there is nothing to predict.
    """
    failures, last = env.failures, agents[0].trial
    # Fresh for every agent: all meet the same starts.
    by_agent = [(agent, Streams(seed)["probe"]) for agent in agents]
    looks = [(memories(agent, env, fit, g), memories(agent, env, tasks, g)) for agent, g in by_agent]
    bootstrap = Streams(seed)["bootstrap"]
    scores = _scores(space, looks, fit, tasks, bootstrap)
    swap = None
    if last > 1:
        played = [last_episodes_in_turn(agent, env, tasks, generator) for agent, generator in by_agent]
        swap = {"episodes": last - 1, "discrete": discrete, **compare(played, bootstrap, discrete=discrete)}
    return {
        "agent": agents[0].name,
        "family": space.family,
        "seed": seed,
        "fit_tasks": len(fit),
        "tasks": len(tasks),
        "episodes": last,
        "failures": env.failures - failures,
        "probe": scores,
        "swap": swap,
    }


def memories(agent: MetaAgent, env: BatchEnv, tasks: Tasks, generator: torch.Generator) -> Float[Tensor, "X M H"]:
    """Return what the memory gives after 0, 1, ... n episodes with each task (X = n + 1), at the start of the next."""
    parts = []
    for some, count in in_turn(tasks, env.num_worlds):
        policy = begin(agent, some)
        env.set_tasks(some)
        looks = [_look(policy, env.reset(generator))]
        for _ in range(agent.trial):
            # It starts the episode anew: a reset without a step is no part of the trial.
            collect(env, policy, some, 1, generator, new_trial=False)
            looks.append(_look(policy, env.reset(generator)))
        parts.append(torch.stack(looks)[:, :count])
    return torch.cat(parts, dim=1)


def _look(policy: Remembering, observation: Float[Tensor, "B O"]) -> Float[Tensor, "B H"]:
    policy.begin_episode()
    return policy.look(observation)[0].detach().to("cpu", torch.float64)


class Ridge:
    """Ridge regression from N rows of features, with a penalty chosen by leave-one-out error.

    Args:
        features: of the rows; one decomposition of them serves all targets.
    """

    def __init__(self, features: Float[Tensor, "N H"]) -> None:
        self._mean = features.mean(0)
        deviation = features.std(0, correction=0)
        # Rounding alone, in what is the same for all rows, is no feature.
        still = deviation <= 1e-6 * (1.0 + self._mean.abs())
        self._scale = torch.where(still, torch.inf, deviation)
        self._left, self._sizes, self._right = torch.linalg.svd((features - self._mean) / self._scale, False)

    def predict(self, targets: Float[Tensor, "N C"], features: Float[Tensor, "M H"]) -> Float[Tensor, "M C"]:
        """Return what a fit to the targets gives for other rows; every component has a penalty of its own."""
        average = targets.mean(0)
        centred = targets - average
        weights = self._left.T @ centred
        squares, rows = self._sizes.square(), len(targets)
        least, best = torch.full_like(average, torch.inf), torch.zeros_like(weights)
        for penalty in PENALTIES:
            kept = squares / (squares + rows * penalty)
            residual = centred - self._left @ (kept[:, None] * weights)
            # The error that a row has where it is left out of the fit, its intercept included.
            leverage = 1.0 / rows + self._left.square() @ kept
            error = (residual / (1.0 - leverage)[:, None]).square().mean(0)
            shrunk = (self._sizes / (squares + rows * penalty))[:, None] * weights
            best = torch.where(error < least, shrunk, best)
            least = torch.minimum(error, least)
        return average + (features - self._mean) / self._scale @ (self._right.T @ best)


def _scores(
    space: ParameterSpace,
    looks: Sequence[tuple[Float[Tensor, "X N H"], Float[Tensor, "X M H"]]],
    fit: Tasks,
    tasks: Tasks,
    generator: torch.Generator,
) -> list[dict[str, Any]]:
    """Return the scores of all parameters at all X points.

    Args:
        space: of the family.
        looks: for each of S training seeds what the memory gives with the tasks to fit to, and with those to score on.
        fit: N tasks.
        tasks: M tasks.
        generator: draws the bootstraps.
    """
    ridges = [[(Ridge(known), asked) for known, asked in zip(*look, strict=True)] for look in looks]

    def predictions(targets: Tensor) -> Float[Tensor, "X S M C"]:
        by_seed = [torch.stack([ridge.predict(targets, asked) for ridge, asked in points]) for points in ridges]
        return torch.stack(by_seed, dim=1)

    scores: list[dict[str, Any]] = []
    for parameter in space.parameters:
        learned, truth = fit[parameter.name], tasks[parameter.name]
        if not parameter.is_choice:
            predicted, values = predictions(parameter.features(learned)), parameter.features(truth)
            for name, columns in _parts(parameter, values):
                # Seeds are further components: the same tasks are drawn for all.
                by_point = (torch.cat(tuple(point[..., columns]), dim=1) for point in predicted)
                wanted = values[:, columns].repeat(1, len(looks))
                points = [r_squared(wanted, point, generator) for point in by_point]
                scores.append(_score(name, "R2", points, components=len(columns)))
            continue
        answers = torch.tensor(parameter.choices, dtype=torch.float64)
        # Nobody can name an alternative that he has never met, or fail to name the only one.
        if len(answers) > 1 and bool(torch.isin(truth, learned).all()):
            predicted = predictions((learned[:, None] == answers).double())
            right = (answers[predicted.argmax(3)] == truth).double()
            chance = float((truth[:, None] == answers).double().mean(0).max())
            points = [bootstrap_interval(point, mean, generator) for point in right]
            scores.append(_score(parameter.name, "accuracy", points, chance=chance))
    if not scores:
        raise UserError(
            f"There is nothing to predict in these tasks of {space.family}: training tasks have none of their values. "
            "Use another --split."
        )
    return scores


def _parts(parameter: Parameter, values: Float[Tensor, "M C"]) -> Iterator[tuple[str, list[int]]]:
    """Yield what of a parameter has a score of its own: name, and columns of its features that differ among tasks."""
    columns = [
        column for column in range(parameter.feature_size) if bool((values[:, column] != values[0, column]).any())
    ]
    if parameter.feature_size == 1 or len(columns) > MOST_COMPONENTS:
        yield from [(parameter.name, columns)] if columns else []
    else:
        yield from ((f"{parameter.name}[{column}]", [column]) for column in columns)


def _score(
    name: str, score: str, points: Sequence[Interval], *, components: int = 1, chance: float | None = None
) -> dict[str, Any]:
    return {
        "parameter": name,
        "components": components,
        "score": score,
        "chance": chance,
        "points": [{"episodes": episodes, **asdict(point)} for episodes, point in enumerate(points)],
    }


# -- swap -------------------------------------------------------------------------------------------------------------
