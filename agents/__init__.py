"""Agents by name. Each file holds one algorithm and reads top to bottom."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from metarl.agents.maml_trpo import MamlTrpo, MamlTrpoConfig
from metarl.agents.multitask import Multitask, MultitaskConfig
from metarl.agents.rl2 import Rl2, Rl2Config
from metarl.errors import UserError, nearest
from metarl.ranks import ALONE, Ranks
from metarl.seeding import Streams
from metarl.types import EnvSpec, MetaAgent

AGENTS: dict[str, tuple[type[Any], Any, str]] = {
    "maml-trpo": (
        MamlTrpoConfig,
        MamlTrpo,
        "meta-learns an initial policy that adapts by policy-gradient steps",
    ),
    "rl2": (Rl2Config, Rl2, "learns to adapt in its memory, over trials of several episodes"),
    "multitask": (
        MultitaskConfig,
        partial(Multitask, name="multitask"),
        "one policy for all tasks, fine-tuned at test",
    ),
    "oracle": (MultitaskConfig, partial(Multitask, name="oracle"), "one policy that is told the task"),
    "random": (MultitaskConfig, partial(Multitask, name="random"), "an untrained policy, fine-tuned at test"),
}
"""Name -> (config class, constructor, summary)."""


def config_class(name: str) -> type[Any]:
    """Return an agent's config class.

    Raises:
        UserError: unknown agent; lists what exists.
    """
    if name not in AGENTS:
        raise UserError(f"Unknown agent '{name}'.{nearest(name, AGENTS)}")
    return AGENTS[name][0]


def make(
    name: str, config: Any, spec: EnvSpec, streams: Streams, device: torch.device, ranks: Ranks = ALONE
) -> MetaAgent:
    """Return a freshly initialised agent.

    Args:
        name: of the agent.
        config: an object of its config class.
        spec: the family's sizes.
        streams: `init` draws the initial parameters.
        device: where the networks live.
        ranks: the processes that train it together, each on its share of the tasks.

    Raises:
        UserError: unknown agent, or tasks that the ranks cannot share out.
    """
    config_class(name)
    return AGENTS[name][1](config, spec, streams, device, ranks)
