"""The time limit that an environment is asked for: `horizon`, or Gymnasium's own word for it, `max_episode_steps`.

`gymnasium.make` tells `max_episode_steps` to a wrapper only, after it has made the environment: episodes could be cut
short by it, but never become longer. So the environment looks up what the `make` that is making it was asked.
"""

from __future__ import annotations

import copy
import sys
from numbers import Integral
from types import FrameType
from typing import Any

from gymnasium.envs.registration import EnvSpec, make

from metarl.errors import UserError


def asked_horizon(horizon: int | None, max_episode_steps: Any) -> int | None:
    """Return the number of steps that an environment being made is asked for, or None for its family's.

    Args:
        horizon: the argument of this name.
        max_episode_steps: likewise, of any type.

    Raises:
        UserError: the two differ, or `max_episode_steps` is no number of steps from 1.
    """
    if max_episode_steps is None:
        return horizon
    if isinstance(max_episode_steps, bool) or not isinstance(max_episode_steps, Integral) or max_episode_steps < 1:
        raise UserError(
            f"got max_episode_steps={max_episode_steps!r}: give a whole number from 1, every episode ends some time"
        )
    if horizon is not None and horizon != max_episode_steps:
        raise UserError(
            f"got horizon={horizon} and max_episode_steps={max_episode_steps}, which mean the same: give one of them"
        )
    return int(max_episode_steps)


def limit_of_make(kind: type) -> Any:
    """Return the `max_episode_steps` of the `gymnasium.make` that is making an environment, if one is.

    Args:
        kind: the environment's class: another environment's `make` may be making one of its own of this class.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not make.__code__:
        frame = frame.f_back
    if frame is None or frame.f_locals["env_creator"] is not kind:
        return None
    asked, made_from = frame.f_locals["max_episode_steps"], frame.f_locals["id"]
    return made_from.max_episode_steps if asked is None and isinstance(made_from, EnvSpec) else asked


def with_limit(spec: EnvSpec | None, horizon: int) -> EnvSpec | None:
    """Return the spec of an environment, telling its time limit."""
    if spec is None:
        return None
    told = copy.copy(spec)
    told.max_episode_steps = horizon
    return told
