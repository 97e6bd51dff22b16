"""A swap of memories: the last episode of a trial with the memory of another task, or with none (see probe.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from metarl.errors import UserError
from metarl.evaluation.remembering import begin, in_turn
from metarl.evaluation.statistics import bootstrap_interval, mean
from metarl.learning.rollout import collect
from metarl.types import BatchEnv, MetaAgent, Tasks, Trajectories

MEMORIES = ("own", "other", "none")
"""Whose memory a world has in the last episode."""


def last_episodes_in_turn(
    agent: MetaAgent, env: BatchEnv, tasks: Tasks, generator: torch.Generator
) -> dict[str, dict[str, Tensor]]:
    """Return return, first action and, where there is such a thing, success of `last_episodes`, one row a task."""
    parts: dict[str, dict[str, list[Tensor]]] = {whose: {} for whose in MEMORIES}
    for some, count in in_turn(tasks, env.num_worlds):
        for whose, episode in last_episodes(agent, env, some, generator).items():
            rows = {"return": episode.returns, "first_action": episode.actions[:, :, 0]}
            if episode.success is not None:
                rows["success"] = episode.success
            for name, values in rows.items():
                parts[whose].setdefault(name, []).append(values.squeeze(1)[:count].double())
    return {whose: {name: torch.cat(part) for name, part in by_name.items()} for whose, by_name in parts.items()}


def compare(
    played: Sequence[dict[str, dict[str, Tensor]]], generator: torch.Generator, *, discrete: bool
) -> dict[str, Any]:
    """Return the figures of the last episodes of S training seeds with each memory, and their differences."""
    by_memory = {
        whose: {name: torch.stack([one[whose][name] for one in played]) for name in played[0][whose]}
        for whose in MEMORIES
    }
    # Policy noise is the same with both memories: what differs between the actions is due to the memory.
    own, other = (by_memory[whose].pop("first_action") for whose in ("own", "other"))
    del by_memory["none"]["first_action"]
    change = (own != other).any(2).double() if discrete else (own.clamp(-1, 1) - other.clamp(-1, 1)).abs().mean(2)
    for whose in MEMORIES[1:]:
        by_memory[f"own_minus_{whose}"] = {
            name: values - by_memory[whose][name] for name, values in by_memory["own"].items()
        }
    figures: dict[str, Any] = {
        row: {name: asdict(bootstrap_interval(values, mean, generator)) for name, values in by_name.items()}
        for row, by_name in by_memory.items()
    }
    return figures | {"first_action": asdict(bootstrap_interval(change, mean, generator))}


def last_episodes(agent: MetaAgent, env: BatchEnv, tasks: Tasks, generator: torch.Generator) -> dict[str, Trajectories]:
    """Play the trials three times, the same up to the last episode, which is played with each of `MEMORIES`."""
    order = partners(tasks)
    start = generator.get_state()
    played = {}
    for whose in MEMORIES:
        generator.set_state(start)
        policy = begin(agent, tasks)
        env.set_tasks(tasks)
        for _ in range(agent.trial - 1):
            collect(env, policy, tasks, 1, generator, new_trial=False)
        if whose == "other":
            policy = policy.carried(order)
        elif whose == "none":
            policy = begin(agent, tasks)
        played[whose] = collect(env, policy, tasks, 1, generator, new_trial=False)
    return played


def partners(tasks: Tasks) -> Int[Tensor, " M"]:
    """Return for every task the next one, round the end, that differs from it.

    Raises:
        UserError: all are the same.
    """
    here = torch.arange(len(tasks))
    found = torch.full_like(here, -1)
    for shift in range(1, len(tasks)):
        there = here.roll(-shift)
        differs = [(value != value[there]).reshape(len(tasks), -1).any(1) for value in tasks.values.values()]
        found = torch.where((found < 0) & torch.stack(differs).any(0), there, found)
        if bool((found >= 0).all()):
            return found
    raise UserError(f"All {len(tasks)} tasks of {tasks.family} are the same. Ask for more, or use another --split.")
