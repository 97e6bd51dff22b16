"""One world of a family as a Gymnasium environment.

    import gymnasium, metarl.envs

    env = gymnasium.make("metarl/HalfCheetahVel-v0", variant="maml17", task={"velocity": 1.5})
    observation, info = env.reset(seed=0)                                   # info["task"] == {"velocity": 1.5}
    observation, info = env.reset(options={"task": {"velocity": 0.5}})      # another task from here on
    observation, info = env.reset(options={"task": "sample"})               # a task drawn from the split
    env = gymnasium.make("metarl/HalfCheetahVel-v0", horizon=500)            # longer episodes

A plain reset starts a new episode of the same task. A modified family (see modifiers/names.py) is a variant too:
`variant="maml17+mass"`, or `FamilyEnv("half-cheetah-vel+mass")`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from jaxtyping import Float

from metarl.envs.draw import Painter, Picture, make_painter
from metarl.envs.family import LARGEST_VALID, Family
from metarl.envs.gym.limit import asked_horizon, limit_of_make, with_limit
from metarl.envs.gym.standing import environment_state, restore_environment
from metarl.envs.gym.task_choice import Task, TaskChoice, check_options, generators
from metarl.envs.making import make_worlds
from metarl.envs.registry import resolve
from metarl.errors import UserError
from metarl.types import Record

Observation = Float[np.ndarray, " O"]
Action = np.ndarray | np.integer
"""Numbers, or the number of an alternative."""

RENDER_MODES = ("rgb_array",)


class FamilyEnv(gymnasium.Env[Observation, Action]):
    """One world of a family.

    Observations are float64, actions are in the family's physical unit and clipped to its bounds (the number of the
    alternative where the family is discrete). It keeps its time limit itself: no `TimeLimit` wrapper is needed.
    `info["task"]` is the record of the task in force, `info["reward/<term>"]` each term of the reward,
    `info["success"]` whether the task's goal is met, where the family has one.

    Args:
        family: a family or its name, `name` or `name@variant`.
        variant: the variant, where `family` names none.
        horizon: steps of an episode; the family's if not given. `gymnasium.make` takes `max_episode_steps` for it too.
        task: the task from the start.
        split: where tasks are drawn from (`train` unless given): one at the first reset, others only on the reset
            option `task="sample"`.
        render_mode: `rgb_array`, or None.
        width: of the pictures, pixels.
        height: of the pictures, pixels.

    Raises:
        UserError: an unknown name, task and split both given, or a task or horizon that is not valid.
    """

    # Gymnasium reads the class's before it makes an instance, whose frame rate is its family's.
    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 20}  # noqa: RUF012

    def __init__(
        self,
        family: Family | str,
        *,
        variant: str | None = None,
        horizon: int | None = None,
        task: Task | None = None,
        split: str | None = None,
        render_mode: str | None = None,
        width: int = 480,
        height: int = 480,
    ) -> None:
        self.family = resolve(family, variant, asked_horizon(horizon, limit_of_make(type(self))))
        self.render_mode = check_render_mode(render_mode)
        self.metadata = {**type(self).metadata, "render_fps": frames_per_second(self.family)}
        self.observation_space, self.action_space = make_spaces(self.family)
        self._choice = TaskChoice(self.family, 1, task, split)
        self._worlds = make_worlds(
            self.family, 1, threads=1, unit_actions=False, dtype=torch.float64, pictures=render_mode is not None
        )
        self._spec: EnvSpec | None = None
        self._picture_size = (width, height)
        self._painter: Painter | None = None

    @property
    def spec(self) -> EnvSpec | None:
        """What `gymnasium.make` made it from, with its time limit."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._spec = with_limit(spec, self.family.horizon)

    @property
    def task(self) -> Record:
        """The task, a copy of its record; where tasks switch, both parts and the step."""
        tasks = self._worlds.tasks
        if tasks is None:
            raise UserError("this environment has no task yet: call reset first")
        return tasks.records()[0]

    def _present(self) -> Record:
        """Return the record of the task in force."""
        assert self._worlds.present is not None
        return self._worlds.present.records()[0]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start a new episode.

        Args:
            seed: seeds the starts (and the task, if one is drawn) of this and all later resets.
            options: `task`: a task record to change to, or `sample` to draw one from the split.
        """
        chosen = check_options(options, ("task",))
        super().reset(seed=seed)
        for_task, for_start = generators(self.np_random)
        tasks = self._choice.at_reset(chosen, for_task)
        if tasks is not None:
            self._worlds.set_tasks(tasks)
        observation = self._worlds.reset(for_start)
        return observation[0].numpy(), {"task": self._present()}

    def step(self, action: Action | int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Take one action.

        Raises:
            UserError: the episode has ended, or the action has the wrong shape or is not finite.
        """
        step = self._worlds.step(to_actions(action, self.family, ()).reshape(1, -1))
        info: dict[str, Any] = {"task": self._present()}
        info.update((f"reward/{name}", value.item()) for name, value in step.terms.items())
        if step.success is not None:
            info["success"] = bool(step.success)
        observation = step.observation[0].numpy()
        return observation, step.reward.item(), bool(step.terminated), bool(step.truncated), info

    def get_state(self) -> dict[str, Any]:
        """Return where the environment is, its randomness included: the middle of an episode can be gone back to.

        It pickles, and is much cheaper than a copy of the environment (`copy.deepcopy` and `pickle` work too).

        Raises:
            UserError: the family's environments run in processes of their own.
        """
        return environment_state(self._worlds, self._choice, self.np_random)

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to where this environment, or another one of its family, was.

        Args:
            state: of `get_state`; it stays as it is, and can be gone back to again.

        Raises:
            UserError: it is of another family.
        """
        self.np_random = restore_environment(state, self._worlds, self._choice)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy has: all but the pictures' painter, which it makes anew."""
        return {**vars(self), "_painter": None}

    def render(self) -> Picture | None:
        """Return the picture of the world, or None without a render mode.

        Raises:
            UserError: there is no off-screen OpenGL here, or the family has no drawing.
        """
        if self.render_mode is None:
            return None
        if self._painter is None:
            self._painter = make_painter(self._worlds, *self._picture_size)
        return self._painter(0)

    def close(self) -> None:
        """Free what the pictures took."""
        if self._painter is not None:
            self._painter.close()
            self._painter = None


def check_render_mode(render_mode: str | None) -> str | None:
    """Return the render mode, if it exists."""
    if render_mode is not None and render_mode not in RENDER_MODES:
        raise UserError(f"got render_mode='{render_mode}': choose from {', '.join(RENDER_MODES)} or None")
    return render_mode


def frames_per_second(family: Family) -> float:
    """Return how many pictures a second to show: as in real time, where that is not tedious."""
    return max(10.0, round(1.0 / family.step_seconds, 3))


def make_spaces(family: Family) -> tuple[Box, Box | Discrete | MultiDiscrete]:
    """Return the observation space (bounded by what counts as valid) and the action space of one world."""
    observations = Box(-LARGEST_VALID, LARGEST_VALID, (family.observation_size,), np.float64)
    if family.discrete:
        one = len(family.choices) == 1
        return observations, Discrete(family.action_size) if one else MultiDiscrete(np.array(family.choices))
    actions = Box(np.array(family.action_low, np.float32), np.array(family.action_high, np.float32), dtype=np.float32)
    return observations, actions


def to_actions(action: Any, family: Family, batch: tuple[int, ...]) -> torch.Tensor:
    """Return Gymnasium's actions as a family takes them, or say what is wrong with them.

    Args:
        action: `batch` + [A] numbers, or `batch` whole numbers from 0 to A - 1 where the family is discrete
            (`batch` + [choices] where an action makes several choices).
        family: the family.
        batch: () for one world, (B,) for many.
    """
    if not family.discrete:
        return _to_tensor(action, (*batch, family.action_size))
    counts = family.choices
    chosen = _to_tensor(action, batch if len(counts) == 1 else (*batch, len(counts))).reshape(*batch, len(counts))
    index = chosen.nan_to_num(-1.0).long()
    if not bool(((index == chosen) & (index >= 0) & (index < torch.tensor(counts))).all()):
        last = " and ".join(str(count - 1) for count in counts)
        raise UserError(f"got the action {action!r}: give whole numbers from 0 to {last}")
    parts = zip(index.unbind(-1), counts, strict=True)
    return torch.cat([torch.nn.functional.one_hot(part, count) for part, count in parts], -1).double()


def _to_tensor(action: Any, shape: tuple[int, ...]) -> torch.Tensor:
    try:
        array = np.asarray(action, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"got the action {action!r}: give numbers of shape {shape}") from error
    if array.shape != shape:
        raise UserError(f"got an action of shape {array.shape}: give one of shape {shape}")
    return torch.from_numpy(array)
