"""Agents and made-up curves for the tests of evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from metarl.agents import config_class, make
from metarl.envs import get
from metarl.evaluation.curve import Curve, Entry, Evaluation
from metarl.seeding import Streams
from metarl.types import MetaAgent, Tasks
from tests.helpers.toys import seeded

FAMILY = get("point-nav")


TASKS = FAMILY.space.sample(4, "test", seeded(0))


def untrained() -> MetaAgent:
    config = config_class("random")(hidden=(8,), inner_rate=0.5)
    return make("random", config, FAMILY.spec(), Streams(0), torch.device("cpu"))


def remembering(episodes: int = 3) -> MetaAgent:
    """Return an untrained agent with a memory."""
    config = config_class("rl2")(episodes=episodes, width=4)
    return make("rl2", config, FAMILY.spec(), Streams(0), torch.device("cpu"))


def entry(agent: str, *seeds: Sequence[Sequence[float]], tasks: Tasks = TASKS, pools: bool = True) -> Entry:
    """Return an entry with made-up returns: for every seed, for every point, one return per task."""
    each = 5 if pools else 1
    curves = tuple(
        Curve(
            parallel=5,
            pools=pools,
            episodes=tuple(range(0, each * len(points), each)),
            returns=torch.tensor(points, dtype=torch.float64),
            tasks=tasks,
            failures=0,
        )
        for points in seeds
    )
    names = tuple(f"runs/{agent}{i}" for i in range(len(seeds)))
    return Entry(agent=agent, curves=curves, runs=names, seeds=tuple(range(len(seeds))))


def made_up(oracle: Entry | None = None, random: Entry | None = None) -> Evaluation:
    agent = entry("maml-trpo", [[-10.0, -20.0, -30.0, -40.0], [-4.0, -5.0, -6.0, -45.0], [-1.0, -2.0, -3.0, -4.0]])
    return Evaluation(family=FAMILY.full_name, split="test", seed=0, entries=(agent,), oracle=oracle, random=random)
