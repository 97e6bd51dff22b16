"""Many worlds of a family as a Gymnasium vector environment, stepped together on the CPU engine.

    import gymnasium, metarl.envs

    envs = gymnasium.make_vec("metarl/HalfCheetahVel-v0", num_envs=64, variant="maml17")
    observations, infos = envs.reset(seed=0)                                     # 64 tasks of the train split
    observations, infos = envs.reset(options={"task": {"velocity": 0.5}})        # this task in all worlds
    observations, infos = envs.reset(options={"tasks": [{"velocity": v} for v in speeds]})    # one each

Neither a plain reset nor an autoreset changes a task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float

from metarl.envs.draw import Painter, Picture, make_painter
from metarl.envs.family import Family
from metarl.envs.gym.limit import asked_horizon, with_limit
from metarl.envs.gym.single import RENDER_MODES, check_render_mode, frames_per_second, make_spaces, to_actions
from metarl.envs.gym.standing import environment_state, restore_environment
from metarl.envs.gym.task_choice import Task, TaskChoice, check_options, generators
from metarl.envs.making import make_worlds
from metarl.envs.registry import resolve
from metarl.errors import UserError
from metarl.types import Tasks

Observations = Float[np.ndarray, "B O"]
Flags = Bool[np.ndarray, " B"]
Infos = dict[str, Any]


class FamilyVectorEnv(gymnasium.vector.VectorEnv[Observations, np.ndarray, np.ndarray]):
    """Worlds of a family, which begin a new episode of the same task after one has ended.

    Observations and rewards are float64, actions are in the family's physical unit and clipped to its bounds (the
    numbers of the alternatives where the family is discrete). `infos["task"]` holds the parameters of the tasks in
    force, `infos["reward/<term>"]` the terms of the reward, `infos["success"]` whether each world's goal is met, where
    the family has one; each with Gymnasium's mask `_<key>` of the worlds that have it.

    Args:
        num_envs: B.
        family: a family or its name, `name` or `name@variant`.
        variant: the variant, where `family` names none.
        horizon: steps of an episode; the family's if not given.
        max_episode_steps: Gymnasium's word for `horizon`.
        task: the task of all worlds from the start.
        split: where tasks are drawn from (`train` unless given): one a world at the first reset, others only on the
            reset option `task="sample"`.
        threads: engine threads; 0 takes every core.
        autoreset_mode: when the next episode begins, as in Gymnasium: in the next step (default, its action is
            ignored), in the same step (the last observation is then in `infos["final_obs"]`), or only by a reset
            with the option `reset_mask`.
        render_mode: `rgb_array`, or None.
        width: of the pictures, pixels.
        height: of the pictures, pixels.

    Raises:
        UserError: an unknown name, task and split both given, or a task or horizon that is not valid.
    """

    # Gymnasium reads the class's before it makes an instance, whose mode and frame rate may be others.
    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": list(RENDER_MODES),
        "render_fps": 20,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int,
        family: Family | str,
        *,
        variant: str | None = None,
        horizon: int | None = None,
        max_episode_steps: int | None = None,
        task: Task | None = None,
        split: str | None = None,
        threads: int = 0,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        width: int = 480,
        height: int = 480,
    ) -> None:
        self.family = resolve(family, variant, asked_horizon(horizon, max_episode_steps))
        self.num_envs = num_envs
        self.render_mode = check_render_mode(render_mode)
        self.autoreset_mode = _autoreset_mode(autoreset_mode)
        self.metadata = {
            **type(self).metadata,
            "render_fps": frames_per_second(self.family),
            "autoreset_mode": self.autoreset_mode,
        }
        self._worlds = make_worlds(
            self.family,
            num_envs,
            threads=threads,
            unit_actions=False,
            dtype=torch.float64,
            pictures=render_mode is not None,
        )
        self.single_observation_space, self.single_action_space = make_spaces(self.family)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._choice = TaskChoice(self.family, num_envs, task, split)
        self._ended = np.zeros(num_envs, dtype=np.bool_)
        self._spec: EnvSpec | None = None
        self._picture_size = (width, height)
        self._painter: Painter | None = None

    @property
    def spec(self) -> EnvSpec | None:
        """What `gymnasium.make_vec` made them from, with their time limit."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._spec = with_limit(spec, self.family.horizon)

    @property
    def tasks(self) -> Tasks:
        """The tasks, one a world; where tasks switch, both parts and the step."""
        tasks = self._worlds.tasks
        if tasks is None:
            raise UserError("these environments have no tasks yet: call reset first")
        return tasks

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Observations, Infos]:
        """Start a new episode in every world, or in those of the option `reset_mask`.

        Args:
            seed: seeds the starts (and the tasks, if any are drawn) of this and all later episodes.
            options: `task`: a task record for all worlds, or `sample` to draw tasks from the split; `tasks`: a task
                record for each world; `reset_mask`: boolean array [B], the worlds to reset (others take a new task
                when they are next reset).
        """
        chosen = check_options(options, ("task", "tasks", "reset_mask"))
        mask = _reset_mask(chosen["reset_mask"], self.num_envs) if "reset_mask" in chosen else None
        if seed is not None and not isinstance(seed, int | np.integer):
            raise UserError(f"got seed={seed!r}: give one integer, all worlds' seeds derive from it")
        super().reset(seed=seed)
        for_tasks, for_start = generators(self.np_random)
        tasks = self._choice.at_reset(chosen, for_tasks)
        if tasks is not None:
            self._worlds.set_tasks(tasks)
        begun = np.ones(self.num_envs, dtype=np.bool_) if mask is None else mask
        self._ended = self._ended & ~begun
        observation = self._worlds.reset(for_start, None if mask is None else _indices(mask))
        return observation.numpy(), self._infos({}, begun, np.zeros_like(begun))

    def step(self, actions: np.ndarray) -> tuple[Observations, Float[np.ndarray, " B"], Flags, Flags, Infos]:
        """Take one action in every world.

        Raises:
            UserError: actions of the wrong shape or not finite, no reset yet, or, without autoreset, a world whose
                episode has ended.
        """
        action = to_actions(actions, self.family, (self.num_envs,))
        begin = self._ended
        if self.autoreset_mode is AutoresetMode.DISABLED and begin.any():
            raise UserError(
                f"the episodes of worlds {np.flatnonzero(begin).tolist()} have ended: reset them first "
                "(option 'reset_mask'), or choose another autoreset_mode"
            )
        observation = np.zeros((self.num_envs, self.family.observation_size))
        reward = np.zeros(self.num_envs)
        terminated, truncated = np.zeros_like(begin), np.zeros_like(begin)
        details: dict[str, np.ndarray] = {}
        if not begin.all():
            step = self._worlds.step(action)
            observation, reward = step.observation.numpy(), step.reward.numpy()
            terminated, truncated = step.terminated.numpy(), step.truncated.numpy()
            details = {f"reward/{name}": value.numpy() for name, value in step.terms.items()}
            if step.success is not None:
                details["success"] = step.success.numpy()
        ended = terminated | truncated
        infos = self._infos(details, np.ones_like(begin), ~begin)
        if self.autoreset_mode is AutoresetMode.SAME_STEP and ended.any():
            final = self._infos(details, ended, ended)
            infos = self._infos(details, np.ones_like(begin), ~ended)
            infos["final_obs"], infos["_final_obs"] = _rows(observation, ended), ended.copy()
            infos["final_info"], infos["_final_info"] = final, ended.copy()
            begin, ended = ended, np.zeros_like(ended)
        if begin.any():
            rows = _indices(begin)
            _, for_start = generators(self.np_random)
            observation[begin] = self._worlds.reset(for_start, rows)[rows].numpy()
        self._ended = ended
        return observation, reward, terminated, truncated, infos

    def _infos(self, details: Mapping[str, np.ndarray], has_task: Flags, has_details: Flags) -> Infos:
        """Return Gymnasium's vector form of every world's info, zero where a world has none."""
        task: Infos = {}
        assert self._worlds.present is not None
        for name, value in self._worlds.present.values.items():
            column = value.numpy().copy()
            column[~has_task] = 0.0
            task[name], task[f"_{name}"] = column, has_task.copy()
        infos: Infos = {"task": task, "_task": has_task.copy()}
        if has_details.any():
            for name, value in details.items():
                infos[name] = np.where(has_details, value, np.zeros((), value.dtype))
                infos[f"_{name}"] = has_details.copy()
        return infos

    def get_state(self) -> dict[str, Any]:
        """Return where the worlds are, their randomness included: the middle of an episode can be gone back to.

        It pickles, and is much cheaper than a copy of the environment (`copy.deepcopy` and `pickle` work too).

        Raises:
            UserError: the family's environments run in processes of their own.
        """
        return {**environment_state(self._worlds, self._choice, self.np_random), "ended": self._ended.copy()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to where these worlds, or as many others of their family, were.

        Args:
            state: of `get_state`; it stays as it is, and can be gone back to again.

        Raises:
            UserError: it is of another family, or of another number of worlds.
        """
        self.np_random = restore_environment(state, self._worlds, self._choice)
        # Of a single world it has none: the next step of an ended one would have been an error.
        self._ended = np.array(state.get("ended", np.zeros(self.num_envs, dtype=np.bool_)))

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy has: all but the pictures' painter, which it makes anew."""
        return {**vars(self), "_painter": None}

    def render(self) -> tuple[Picture, ...] | None:
        """Return the picture of every world, or None without a render mode.

        Raises:
            UserError: there is no off-screen OpenGL here, or the family has no drawing.
        """
        if self.render_mode is None:
            return None
        if self._painter is None:
            self._painter = make_painter(self._worlds, *self._picture_size)
        painter = self._painter
        return tuple(painter(world) for world in range(self.num_envs))

    def close_extras(self) -> None:
        """Free what the pictures took."""
        if self._painter is not None:
            self._painter.close()
            self._painter = None


def _autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except ValueError as error:
        allowed = ", ".join(choice.value for choice in AutoresetMode)
        raise UserError(f"got autoreset_mode={mode!r}: choose from {allowed}") from error


def _reset_mask(mask: Any, count: int) -> Flags:
    array = np.asarray(mask)
    if array.dtype != np.bool_ or array.shape != (count,) or not array.any():
        raise UserError(
            f"got reset_mask of type {array.dtype} and shape {array.shape}: give {count} booleans, one or more of "
            "them true"
        )
    return array


def _indices(mask: Flags) -> torch.Tensor:
    return torch.from_numpy(np.flatnonzero(mask))


def _rows(values: np.ndarray, mask: Flags) -> np.ndarray:
    """Return the chosen rows as an object array, None elsewhere, as Gymnasium has them."""
    rows = np.full(len(values), None, dtype=object)
    for index in np.flatnonzero(mask):
        rows[index] = values[index].copy()
    return rows
