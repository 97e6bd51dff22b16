"""Whether what a command is about to play fits into memory (the reckoning itself: metarl/memory.py)."""

from __future__ import annotations

from typing import Any

import torch

from metarl import memory
from metarl.envs.family import Family, TorchFamily
from metarl.envs.making import choose_engine
from metarl.envs.physics import CPU
from metarl.ranks import ALONE, Ranks


def check_training(
    family: Family, config: Any, *, engine: str, device: torch.device, ranks: Ranks = ALONE, validated: int = 0
) -> None:
    """Refuse a training that does not fit into memory, before anything of it is there.

    Args:
        family: what it is trained on.
        config: the agent's settings; of an agent of one's own, only what is played is reckoned.
        engine: as in `make_worlds`.
        device: where the agent computes.
        ranks: the processes that train it together. They share out what is played and learned from; each has the
            networks, and what is kept for good, whole.
        validated: worlds of the validation, which the first of them has alone.

    Raises:
        UserError: it does not fit.
    """
    spec = family.spec()
    if hasattr(config, "memory_needed"):
        parts = config.memory_needed(spec)
    else:
        steps = config.worlds * spec.horizon
        parts = {"its worlds, episodes or the horizon": memory.episodes(steps, spec.observation_size, spec.action_size)}
    whole = config.memory_of_each(spec) if hasattr(config, "memory_of_each") else {}
    alone = {}
    if validated:
        played = memory.episodes(validated * spec.horizon, spec.observation_size, spec.action_size)
        alone["--validation"] = played + _of_worlds(family, validated, engine, device)
    _require(family, config.worlds, parts, whole, alone, engine=engine, device=device, ranks=ranks)


def check_playing(
    family: Family,
    worlds: int,
    lower: str,
    *,
    more: dict[str, int] | None = None,
    engine: str = "cpu",
    device: torch.device = CPU,
) -> None:
    """Refuse episodes in parallel worlds that do not fit into memory.

    Args:
        family: what the worlds are of.
        worlds: B.
        lower: the options that ask for them.
        more: options -> memory needed for something else, bytes.
        engine: as in `make_worlds`.
        device: where the agent computes.

    Raises:
        UserError: they do not fit.
    """
    played = memory.episodes(worlds * family.horizon, family.observation_size, family.action_size)
    _require(family, worlds, {lower: played, **(more or {})}, {}, {}, engine=engine, device=device, ranks=ALONE)


def _require(
    family: Family,
    worlds: int,
    parts: dict[str, int],
    whole: dict[str, int],
    alone: dict[str, int],
    *,
    engine: str,
    device: torch.device,
    ranks: Ranks,
) -> None:
    first, *_ = parts
    parts = {**parts, first: parts[first] + _of_worlds(family, worlds, engine, device)}
    # The processes of a machine have its memory together; a GPU is of one of them.
    here = ranks.local if device.type == "cpu" else 1
    shared = {name: count * here // ranks.size for name, count in parts.items()}
    memory.require(shared | {name: count * here for name, count in whole.items()} | alone, device)


def _of_worlds(family: Family, worlds: int, engine: str, device: torch.device) -> int:
    gpu = choose_engine(engine, family, device) == "gpu"
    in_torch = isinstance(family, TorchFamily)
    return memory.worlds(worlds, task_numbers=family.space.feature_size, in_torch=in_torch, gpu=gpu)
