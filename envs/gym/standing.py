"""Where an environment stands, so that planners can look ahead: its worlds, its randomness, and the tasks to come."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from metarl.envs.gym.task_choice import TaskChoice
from metarl.envs.worlds import Worlds
from metarl.errors import UserError


def environment_state(worlds: Worlds, choice: TaskChoice, random: np.random.Generator) -> dict[str, Any]:
    """Return the state of an environment, copied."""
    return {"worlds": worlds.get_state(), "choice": choice.get_state(), "random": copy.deepcopy(random)}


def restore_environment(state: Mapping[str, Any], worlds: Worlds, choice: TaskChoice) -> np.random.Generator:
    """Go back to a state of `environment_state`, and return the randomness that it has.

    Raises:
        UserError: it is no such state, or of another family or number of worlds.
    """
    if not isinstance(state, Mapping) or not {"worlds", "choice", "random"} <= set(state):
        raise UserError("got what is no state of an environment: give what get_state() returned")
    worlds.set_state(state["worlds"])
    choice.set_state(state["choice"])
    return copy.deepcopy(state["random"])
