"""What a task family is: one definition that every engine runs unchanged.

A family says what varies (its `ParameterSpace`), what the agent sees, what it is rewarded for and when an
episode ends, in torch over B worlds. It never sees an engine. Two kinds exist:

* `MujocoFamily`: the physics is a MuJoCo model; `apply` turns tasks into per-world model fields.
* `TorchFamily`: the physics is a few lines of torch, `advance`.

To write a new one, read families/point_nav.py (40 lines of substance) or families/half_cheetah.py, then
`registry.register` it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import mujoco
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from metarl.envs import mujoco_log
from metarl.envs.models import compiled
from metarl.errors import UserError
from metarl.space.parameter_space import ParameterSpace
from metarl.types import EnvSpec, Picture, Tasks

LARGEST_VALID = 1e10
"""State values (m, rad, m/s, rad/s) from here on count as a failed simulation, as in MuJoCo (mjMAXVAL)."""

State = Mapping[str, Tensor]
"""State of B worlds: field name -> [B, ...] (for MuJoCo, the fields of `mjData`), and what the family carries."""

Terms = dict[str, Float[Tensor, " B"]]
"""Reward by name."""

Command = Tensor | tuple[Tensor, dict[str, Tensor]]
"""What reaches the actuators, [B, C]; or that, and the carried fields that change with it."""


def all_valid(values: Tensor) -> bool:
    """Tell whether no value is NaN or too large, in one pass (a NaN makes both ends NaN)."""
    low, high = values.aminmax()
    return low.item() > -LARGEST_VALID and high.item() < LARGEST_VALID


_COPIES: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}
"""Of a constant (by its `id`) on a device: the constant, which must live as long as its id is known, and the copy."""


def on(like: Tensor, constant: Tensor) -> Tensor:
    """Return a constant of a family on the device of `like`; it is copied there once.

    Args:
        like: what the constant meets.
        constant: made once, never changed.
    """
    if constant.device == like.device:
        return constant
    key = id(constant), like.device
    if key not in _COPIES:
        _COPIES[key] = constant, constant.to(like.device)
    return _COPIES[key][1]


@dataclass(frozen=True)
class Observable:
    """One row of a family's observation table."""

    meaning: str
    name: str
    """Name in the model (joint, body, ...), or `-`."""
    unit: str
    """`1`, or nothing, where it has none."""
    exact: bool = False
    """No sensor measures it, so that it has no error: a command, the last action, yes or no."""


@dataclass(frozen=True, kw_only=True)
class Marker:
    """What a picture shows of a task beside the model: a ball, or an arrow. It is no part of the physics."""

    position: Float[Tensor, "B 3"]
    """Centre of the ball, or root of the arrow, in the world's coordinates, m."""
    tip: Float[Tensor, "B 3"] | None = None
    """Tip of the arrow, m; None for a ball."""
    radius: float = 0.1
    """Of the ball, or of the arrow's shaft, m."""
    colour: tuple[float, float, float, float] = (0.1, 0.7, 0.2, 0.8)
    """Red, green, blue and opacity, 0..1."""


@dataclass(frozen=True, kw_only=True)
class View:
    """A camera that does not turn, and stands still or follows a body."""

    centre: tuple[float, float, float] | str
    """Point that it looks at, m; or the name of a body that it follows."""
    distance: float
    """From that point, m."""
    azimuth: float = 90.0
    """Direction that it looks in: 0 along x, 90 along y, degrees."""
    elevation: float = -45.0
    """-90 is straight down, degrees."""


class Family(ABC):
    """A parameterised set of tasks that share observation and action spaces.

    Attributes:
        name: e.g. `half-cheetah-vel`.
        variant: e.g. `maml17`: whose definition this is.
        summary: one line for `metarl list`.
        source: where the definition comes from.
        horizon: T, the time limit in control steps; reaching it truncates.
        step_seconds: simulated seconds of one control step.
        action_low, action_high: bounds of every action dimension, in `action_unit`.
        discrete: whether an action is one of A alternatives, given one-hot, in place of A numbers; or several such
            `choices` side by side.
        pictures: which numbers of an observation are the pixels of pictures.
        remember: state fields that `reward_terms` needs from before the step.
        chances: numbers that are drawn at a reset for every step of the episode.
        carried: state fields of the family's own, which worlds keep beside those of the physics (see `carry`).
        no_switch: why the task cannot change in the middle of an episode (`+switch`, see modifiers/switching.py);
            empty: it can.
        space: the task parameters.
        observables: the observation table, one row per observation dimension.
    """

    name: str
    variant: str
    summary: str
    source: str
    horizon: int
    step_seconds: float
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    action_unit: str
    discrete: bool = False
    remember: tuple[str, ...] = ()
    chances: int = 0
    carried: tuple[str, ...] = ()
    no_switch: str = ""
    space: ParameterSpace
    observables: tuple[Observable, ...]
    pictures: tuple[Picture, ...] = ()

    @property
    def full_name(self) -> str:
        """Name with the variant."""
        return f"{self.name}@{self.variant}"

    def __deepcopy__(self, memo: dict[int, Any]) -> Family:
        """Return the family itself: a copy of an environment has the same one, and it never changes."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Return what pickles: all but what is computed from it when it is first asked for, such as its model."""
        kinds = (vars(kind).items() for kind in type(self).__mro__)
        computed = {name for items in kinds for name, value in items if isinstance(value, cached_property)}
        return {name: value for name, value in vars(self).items() if name not in computed}

    @property
    def observation_size(self) -> int:
        """O."""
        return len(self.observables)

    @property
    def action_size(self) -> int:
        """A."""
        return len(self.action_low)

    @property
    def choices(self) -> tuple[int, ...]:
        """Alternatives of every choice that an action makes; empty where it is numbers."""
        return (self.action_size,) if self.discrete else ()

    @property
    def dynamics_vary(self) -> bool:
        """Whether what follows an action differs between tasks, not only what it is rewarded with.

        Default: it does, which is safe where nothing is known.
        """
        return True

    def spec(self) -> EnvSpec:
        """Return what an agent needs to build its networks."""
        return EnvSpec(
            family=self.full_name,
            observation_size=self.observation_size,
            action_size=self.action_size,
            horizon=self.horizon,
            feature_size=self.space.feature_size,
            features=self.space.features,
            discrete=self.discrete,
            choices=self.choices,
            pictures=self.pictures,
            dynamics_vary=self.dynamics_vary,
            train_tasks=self.space.train_tasks,
            optimal_action=None if type(self).optimal_action is Family.optimal_action else self.optimal_action,
        )

    @abstractmethod
    def reset_state(self, generator: torch.Generator, tasks: Tasks) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the writable state fields of new episodes, one of each task, and all that are `carried`.

        A family with random physics draws all the noise of an episode here and keeps it in its state; or it draws a key
        of every episode, of which chance.py makes the numbers of every step.
        """

    # -- what a control step needs beyond the physics, in the order in which worlds ask for it ------------------------

    def begin(self, state: State, tasks: Tasks) -> dict[str, Tensor]:
        """Return those of the `carried` fields of new episodes that depend on what the physics derives from its start.

        Args:
            state: of all worlds, right after a reset of some; the others keep what they carry.
            tasks: one per world.
        """
        return {}

    def command(self, action: Float[Tensor, "B A"], state: State, tasks: Tasks) -> Command:
        """Return what reaches the actuators (their controls, in the model's order) for the coming control step.

        Default: the action. With it may come new values of `carried` fields, such as where a motor with a lag is: they
        hold after the step. Rewards and `carry` are given what the agent asked for; modifiers such as +delay may have
        changed what comes here.

        Args:
            action: in physical units, within bounds unless a modifier changed it.
            state: before the step.
            tasks: one per world.
        """
        return action

    def disturb(self, state: State, tasks: Tasks) -> Float[Tensor, "B N 6"] | None:
        """Return forces on the N bodies of a MuJoCo model during the coming control step, `mjData.xfrc_applied`.

        They are, in the world's directions, a force at the body's centre of mass (N) and a torque (N m). None, the
        default: there are none in any step.

        Args:
            state: before the step.
            tasks: one per world.
        """
        return None

    def carry(self, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> dict[str, Tensor]:
        """Return new values of `carried` fields, right after the physics; one that is left out stays as it is.

        Reward, ends and observation follow, and are told these values; those of before the step are in the `before` of
        `reward_terms` where `remember` names them.

        Args:
            state: the fields of the physics after the step, the carried ones before it, those that `command` returned
                too.
            action: in physical units, within bounds, as the agent gave it.
            tasks: one per world.
        """
        return {}

    # -- what the agent sees, and is rewarded for ---------------------------------------------------------------------

    @abstractmethod
    def observe(self, state: State, tasks: Tasks) -> Float[Tensor, "B O"]:
        """Return what the agent sees (never the task)."""

    @abstractmethod
    def reward_terms(self, before: State, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> Terms:
        """Return the reward of one step by name; their sum is the reward.

        Args:
            before: the `remember` fields before the step.
            state: all fields after the step, the carried ones too.
            action: action in physical units, within bounds; one-hot where the family is discrete.
            tasks: one task per world.
        """

    def terminated(self, state: State, tasks: Tasks) -> Bool[Tensor, " B"] | None:
        """Return which worlds reached a terminal state, or None where the family never ends early."""
        return None

    def truncated(self, state: State, tasks: Tasks) -> Bool[Tensor, " B"] | None:
        """Return which worlds end here without a terminal state, or None where only the horizon does that."""
        return None

    def success(self, state: State, tasks: Tasks) -> Bool[Tensor, " B"] | None:
        """Return which worlds meet their task's goal now, or None where the family has no such goal."""
        return None

    def optimal_action(self, observation: Float[Tensor, "B O"], tasks: Tasks) -> Float[Tensor, "B A"]:
        """Return the best action of one who knows the task, as an agent gives it: -1..1 of the bounds, or one-hot.

        A family that writes this method can be learned by agents that are shown what is best (dpt). Default: it does
        not say it.

        Args:
            observation: what is seen, which has to be enough to tell the best action of a known task.
            tasks: one for each observation.

        Raises:
            UserError: it does not say it.
        """
        raise UserError(f"{self.full_name} does not say its optimal action: write its `optimal_action`")


class TorchFamily(Family):
    """A family whose physics is written in torch."""

    @abstractmethod
    def advance(self, state: State, action: Float[Tensor, "B A"], tasks: Tasks) -> dict[str, Tensor]:
        """Return the state after one control step."""

    def picture(self, state: State, tasks: Tasks, world: int, width: int, height: int) -> Image.Image:
        """Return a drawing of one world.

        Args:
            state: of all worlds.
            tasks: of all worlds.
            world: which one to draw.
            width: pixels.
            height: pixels.

        Raises:
            UserError: the family has no drawing.
        """
        raise UserError(f"{self.full_name} has no drawing: write its `picture`, or leave render_mode out")


class MujocoFamily(Family):
    """A family on a MuJoCo model.

    State fields named in `fields` are those of `mjData`. `qpos` and `qvel` are current. Fields that MuJoCo
    derives (`xpos`, `cfrc_ext`, `sensordata`, ...) describe the state before the last physics substep, as they
    do in Gymnasium after `mj_step`; right after a reset they are current.

    Attributes:
        frame_skip: physics substeps of one control step.
        fields: the `mjData` fields the family reads.
        camera: what pictures are taken with: a camera of the model (where it has none of that name, a free one), or a
            view.
    """

    frame_skip: int
    fields: tuple[str, ...] = ("qpos", "qvel")
    camera: str | View = "track"

    @abstractmethod
    def model_spec(self) -> mujoco.MjSpec:
        """Return the model, to be compiled."""

    @cached_property
    def model(self) -> mujoco.MjModel:
        """The compiled model. A failing simulation is not restarted by MuJoCo but reported by the engine."""
        mujoco_log.listen()
        return compiled(self.model_spec())

    @property
    def dynamics_vary(self) -> bool:
        """Whether the model differs between worlds."""
        return type(self).apply is not MujocoFamily.apply

    def apply(self, tasks: Tasks) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the model fields that differ between worlds: `mjModel` name (`opt.<name>` for an option) -> [B, ...].

        Default: none.
        """
        return {}

    def markers(self, state: State, tasks: Tasks) -> tuple[Marker, ...]:
        """Return what pictures show of the tasks, such as goals that the model does not have. Default: nothing."""
        return ()

    def crop(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Take out of a world, given as a picture's own copy, what is too much to draw. Default: nothing."""


def random_actions(family: Family, worlds: int, generator: torch.Generator) -> Float[Tensor, "B A"]:
    """Draw an action for every world: uniform in -1..1 of the bounds, or any alternative of every choice.

    Args:
        family: whose actions.
        worlds: B.
        generator: where the randomness comes from.
    """
    if family.discrete:
        chosen = [torch.randint(count, (worlds,), generator=generator) for count in family.choices]
        pairs = zip(chosen, family.choices, strict=True)
        return torch.cat([torch.nn.functional.one_hot(part, count) for part, count in pairs], 1).double()
    return torch.rand(worlds, family.action_size, generator=generator, dtype=torch.float64) * 2.0 - 1.0
