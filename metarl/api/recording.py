"""The episodes of an evaluation as logs, one for each training seed of each agent (metarl/identification)."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import torch

from metarl import memory
from metarl.envs.family import MujocoFamily, TorchFamily
from metarl.envs.making import describe_engine
from metarl.envs.worlds import Worlds
from metarl.errors import UserError
from metarl.files import Folder
from metarl.identification.log import Form, write_arrays
from metarl.identification.minari_data import check_available, plain_name
from metarl.identification.recorder import FORMAT
from metarl.system import file_name
from metarl.types import Trajectories
from metarl.version import __version__

SAME_TIME = 3
"""Copies of a log that are in memory while it is put together and written."""
HDF5_TIMES, HDF5_EPISODE = 2, 15_000
"""A Minari data set needs so many times the bytes, and so many more for each episode."""
FREE = 0.95
"""Part of the free disk that may be taken."""


class Recording:
    """The logs of one evaluation, written as soon as an agent's episodes are complete.

    Args:
        folder: a new one, or an empty one.
        form: what a log is kept as: an NPZ file, or a Minari data set.

    Raises:
        UserError: it is there and not empty, or is no folder; or Minari is asked for and not installed.
    """

    def __init__(self, folder: Path | str, form: Form = "npz") -> None:
        self.folder = Folder.of(folder)
        self.form: Form = form
        if form == "minari":
            check_available()
        path = self.folder.path
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"Got --record {path}, which is there already. Give a new folder, or remove it.")
        self.written: list[str] = []

    def check(self, worlds: Worlds, points: Sequence[int]) -> None:
        """Refuse what fits neither the memory nor the disk.

        Args:
            worlds: in which all is played.
            points: how often all worlds play an episode, for each log.

        Raises:
            UserError: it does not fit.
        """
        family = worlds.family
        # Numbers of an observation and a reward of 4 bytes, of an action and a state of 8.
        step = 4 * (family.observation_size + 1) + 8 * family.action_size
        episode = 4 * family.observation_size + 8 * (family.space.feature_size + _state_size(worlds)) + 100
        each = [count * worlds.num_worlds * (step * worlds.horizon + episode) for count in points]
        memory.require({"--tasks, --episodes or --steps with --record": SAME_TIME * max(each)})
        there = next(parent for parent in (self.folder.path, *self.folder.path.absolute().parents) if parent.exists())
        free, needed = int(FREE * shutil.disk_usage(there).free), sum(each)
        if self.form == "minari":
            needed = HDF5_TIMES * needed + HDF5_EPISODE * worlds.num_worlds * sum(points)
        if needed > free:
            raise UserError(
                f"Got --record {self.folder}, which needs up to {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are "
                "free there. Lower --tasks, --episodes or --steps, or give a folder on another disk."
            )

    def log(self, worlds: Worlds, agent: str, training_seed: int, **facts: Any) -> _Log:
        """Return the log of an agent, yet to be filled and written.

        Args:
            worlds: in which it plays.
            agent: its name.
            training_seed: tells it from others of that name.
            facts: texts and numbers about the evaluation.
        """
        agent_name = plain_name(agent) if self.form == "minari" else file_name(agent)
        name, between = f"{agent_name}-seed{training_seed}", "_" if self.form == "minari" else " "
        same = sum(other == name or other.startswith(f"{name}{between}") for other in self.written)
        self.written.append(f"{name}{between}{same + 1}" if same else name)
        facts |= {"agent": agent, "training_seed": training_seed}
        return _Log(self.folder, self.written[-1], self.form, worlds, facts)


class _Log:
    """The episodes of one agent."""

    def __init__(self, folder: Folder, name: str, form: Form, worlds: Worlds, facts: dict[str, Any]) -> None:
        self.folder, self.name, self.worlds, self.facts = folder, name, worlds, facts
        self.form: Form = form
        self.parts: list[dict[str, np.ndarray]] = []

    def add(self, played: Trajectories, experience: int) -> None:
        """Take in what was just played in all worlds, an episode in each.

        Args:
            played: the episodes.
            experience: episodes with the task that the agent had learned from before.
        """
        count, episodes, steps = played.mask.shape
        real = played.mask.reshape(-1, steps) > 0
        actions = played.actions.reshape(-1, steps, played.actions.shape[-1])[real]
        part = {
            "lengths": real.sum(1),
            "observations": played.observations.reshape(len(real), steps, -1)[real],
            "actions": self.worlds.actions.in_bounds(actions.to(torch.float64)),
            "rewards": played.rewards.reshape(-1, steps)[real],
            "final_observations": played.final_observations.reshape(len(real), -1),
            "terminated": played.terminated.reshape(-1),
            "truncated": ~played.terminated.reshape(-1),
            "task": torch.arange(count).repeat_interleave(episodes),
            "experience": torch.full((count * episodes,), experience),
        }
        if played.success is not None:
            part["success"] = played.success.reshape(-1)
        tasks = played.tasks.repeat(episodes).values
        part |= {f"task.{name}": value for name, value in tasks.items()}
        if isinstance(self.worlds.family, MujocoFamily | TorchFamily):
            part |= {f"start.{name}": value for name, value in self.worlds.starts.items()}
        # Copied: what is played next may be written into the same places.
        self.parts.append({name: value.detach().cpu().numpy().copy() for name, value in part.items()})

    def write(self) -> None:
        """Write all of it."""
        family = self.worlds.family
        parameters = family.space.parameters
        arrays: dict[str, Any] = {
            "format": FORMAT,
            "family": family.full_name,
            "step_seconds": family.step_seconds,
            "engine": describe_engine(self.worlds),
            "versions": [f"metarl {__version__}", f"mujoco {mujoco.__version__}", f"torch {torch.__version__}"],
            "observation_names": [row.meaning for row in family.observables],
            "observation_units": [row.unit for row in family.observables],
            "action_unit": family.action_unit,
            "action_low": family.action_low,
            "action_high": family.action_high,
            "task_names": [parameter.name for parameter in parameters],
            "task_units": [parameter.unit for parameter in parameters],
            **self.facts,
        }
        for name in list(self.parts[0]):
            arrays[name] = np.concatenate([part.pop(name) for part in self.parts])
        write_arrays(self.folder, self.name, arrays, self.form)


def _state_size(worlds: Worlds) -> int:
    """Return how many numbers the state of a world has."""
    return sum(value[0].numel() for value in worlds.physics.state.values())
