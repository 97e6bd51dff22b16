"""Whether a training or a test of a few-shot learner fits into memory (the reckoning itself: metarl/memory.py)."""

from __future__ import annotations

import math
from typing import Any

from metarl import memory
from metarl.devices import resolve_device
from metarl.fewshot.episodes import Source
from metarl.fewshot.parts.backbones import backbone_size
from metarl.fewshot.run import FewShotRun, most_way

MEGABYTE = 1_000_000


def check_training(run: FewShotRun, config: Any, source: Source) -> None:
    """Refuse a training that does not fit into memory, before its folder is made.

    Args:
        run: fitted to the data.
        config: the learner's settings.
        source: the data.

    Raises:
        UserError: it does not fit; says what asks for most.
    """
    weights, kept = backbone_size(run.backbone, source.item_shape, run.width, run.hidden)
    numbers = math.prod(source.item_shape)
    tasks, size = getattr(config, "tasks", 1), getattr(config, "batch_size", 0) or _items(run, config, source)
    # A meta-gradient goes back through every inner step on the support.
    steps = getattr(config, "inner_steps", 0) if hasattr(config, "first_order") else 0
    passed = min(size, getattr(config, "inner_batch", size)) + steps * size * run.shot // (run.shot + run.query)
    update = memory.meta_update(items=tasks * size, passed=tasks * passed, item_numbers=numbers, kept=kept)
    budget = getattr(config, "memory", 0) * MEGABYTE
    if budget:
        # Inner steps are computed anew where not even a task fits: then one of them is kept.
        least = memory.meta_update(items=tasks * size, passed=size, item_numbers=numbers, kept=kept)
        update = min(update, max(2 * budget, least))
    own = weights * tasks * memory.FLOAT * (4 if hasattr(config, "inner_steps") else 0)
    parts = {
        f"{_asking(config)}, --width, --hidden or --size": update,
        "--width, --hidden or --tasks": memory.stored(weights) + own,
    }
    memory.require(parts, resolve_device(run.device))


def check_tests(source: Source, episodes: int, way: int, shot: int, query: int) -> None:
    """Refuse more test episodes, or larger ones, than fit into memory.

    Args:
        source: the data.
        episodes: how many.
        way: classes of each.
        shot: support items of a class.
        query: queries of a class.

    Raises:
        UserError: they do not fit.
    """
    # In regression an episode has items of its own; else it has rows of those that are there.
    numbers = math.prod(source.item_shape) + source.outputs if source.outputs else 2
    one = (1 if source.outputs else way) * (shot + query)
    each = memory.drawn(1, one, numbers)
    memory.require({"--way, --shot, --query or the number of episodes": each * episodes})


def check_answers(run: FewShotRun, source: Source, queries: int) -> None:
    """Refuse more queries at once than fit into memory.

    Args:
        run: whose learner answers.
        source: its data.
        queries: Q.

    Raises:
        UserError: they do not fit.
    """
    _, kept = backbone_size(run.backbone, source.item_shape, run.width, run.hidden)
    needed = memory.meta_update(
        items=queries, passed=queries, item_numbers=math.prod(source.item_shape), kept=kept // 2
    )
    memory.require({"the number of items in --query": needed}, resolve_device(run.device))


def _asking(config: Any) -> str:
    """Return the options that say how many items an update has."""
    if hasattr(config, "batch_size"):
        return "--batch-size"
    return "--tasks, --way, --shot, --query" + (", --train-shot" if hasattr(config, "train_shot") else "")


def _items(run: FewShotRun, config: Any, source: Source) -> int:
    """Return the items of a training task."""
    shot = getattr(config, "train_shot", 0) or run.shot + run.query
    if source.outputs:
        return shot
    way = max(getattr(config, "train_way", 0), run.way)
    return min(way, most_way(source) or way) * shot
