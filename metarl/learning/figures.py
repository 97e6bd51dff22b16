"""What every agent logs of the episodes that it played in an iteration, under the names of the glossary."""

from __future__ import annotations

from collections.abc import Sequence

from metarl.types import Metrics, Trajectories


def of_returns(first: Trajectories, last: Trajectories) -> Metrics:
    """Return the mean returns before and after adaptation, and what it brought."""
    return {
        "return/pre": float(first.returns.mean()),
        "return/post": float(last.returns.mean()),
        "return/gain": float(last.returns.mean() - first.returns.mean()),
    }


def of_episodes(played: Sequence[Trajectories]) -> Metrics:
    """Return what the last episodes were like, and what it took to play all of them.

    Args:
        played: all that was collected in the iteration, in its order.
    """
    last = played[-1]
    steps, seconds = sum(episodes.steps for episodes in played), sum(episodes.seconds for episodes in played)
    return {
        "episode/length": float(last.mask.sum(2).mean()),
        "episode/terminated": float(last.terminated.float().mean()),
        **last.success_rate,
        "env/steps": float(steps),
        **{f"reward/{name}": value for name, value in last.terms.items()},
        "speed/env_steps_per_second": steps / seconds,
        "time/collect": seconds,
        "time/policy": sum(episodes.policy_seconds for episodes in played),
    }
